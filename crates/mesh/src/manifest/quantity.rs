//! Times, sizes and shares as people write them.

use std::time::Duration;

/// `24h`, `30m`, `1h30m`, `90s`, `500ms`; a plain number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        total = total.checked_add(unit(&rest[..letters])?.checked_mul(number)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

fn unit(word: &str) -> Option<Duration> {
    let seconds = match word {
        "ms" => return Some(Duration::from_millis(1)),
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// `1000000`, `64G`, `64GiB` (both of 1024), `64GB` (of 1000).
pub(crate) fn amount(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let mut letters = unit.chars();
    let letter = letters.next();
    let rest = letters.as_str();
    let power = match letter {
        None => 0,
        Some('b') if rest.is_empty() => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some(_) => return None,
    };
    let base: u64 = match rest {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    number.checked_mul(base.checked_pow(power)?)
}

/// `20 %`, `20%`, `0.2`, `20`: percent.
pub(crate) fn percent(text: &str) -> Option<u8> {
    let text = text.trim();
    if let Some(number) = text.strip_suffix('%') {
        return number.trim().parse().ok();
    }
    if let Ok(number) = text.parse::<u8>() {
        return Some(number);
    }
    let share: f64 = text.parse().ok()?;
    // A share is below 1; the range check makes the cast exact enough.
    (0.0..1.0).contains(&share).then(|| (share * 100.0).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(duration("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(duration("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("5 parsecs"), None);
        assert_eq!(duration("h"), None);
        assert_eq!(duration("99999999999w"), None);
        assert_eq!(amount("64GiB"), Some(64 << 30));
        assert_eq!(amount("64GB"), Some(64_000_000_000));
        assert_eq!(amount("1000"), Some(1000));
        assert_eq!(amount("99999999999999T"), None);
        assert_eq!(amount("lots"), None);
        assert_eq!(percent("20 %"), Some(20));
        assert_eq!(percent("0.2"), Some(20));
        assert_eq!(percent("1.5"), None);
        assert_eq!(percent("NaN"), None);
    }
}
