//! Dates as they are typed.

use std::time::Duration;

use der::DateTime;

/// Seconds since the Unix epoch of `2027-03-01`, `2027-03-01T12:00:00Z`, or of a time from now: `+30d`, `+12h`.
pub fn parse(text: &str) -> Result<u64, String> {
    parse_from(text, linux::clock::unix_now())
}

fn parse_from(text: &str, now: u64) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no date: write 2027-03-01, 2027-03-01T12:00:00Z or +30d");
    if let Some(time) = text.strip_prefix('+') {
        let time = mesh::manifest::duration(time).ok_or_else(wrong)?;
        return now.checked_add(time.as_secs()).ok_or_else(wrong);
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let date: DateTime = whole.parse().map_err(|_| wrong())?;
    let since: Duration = date.unix_duration();
    Ok(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::parse_from;

    #[test]
    fn dates() {
        let at = |text| parse_from(text, 1000);
        assert_eq!(at("1970-01-02"), Ok(86_400));
        assert_eq!(at("2027-03-01T12:00:00Z"), Ok(1_803_902_400));
        assert_eq!(at("+30d"), Ok(1000 + 30 * 86_400));
        for wrong in
            ["", "+", "tomorrow", "2027-13-01", "2027-02-30", "2027-03-01 12:00", "+x", "-3d"]
        {
            assert!(at(wrong).is_err_and(|error| error.contains("2027-03-01")), "{wrong}");
        }
    }
}
