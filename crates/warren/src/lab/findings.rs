//! What a scenario did, measured and required: as text for people, as one object for programs.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What a measurement must be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Required {
    /// Exactly this.
    Exactly(f64),
    /// No more.
    AtMost(f64, &'static str),
    /// Less.
    Below(f64, &'static str),
    /// No less.
    AtLeast(f64),
}

impl Required {
    /// Whether a measurement is so. What could not be measured never is.
    pub fn holds(self, measured: Option<f64>) -> bool {
        measured.is_some_and(|measured| match self {
            Self::Exactly(wanted) => measured == wanted,
            Self::AtMost(most, _) => measured <= most,
            Self::Below(bound, _) => measured < bound,
            Self::AtLeast(least) => measured >= least,
        })
    }

    fn unit(self) -> &'static str {
        match self {
            Self::AtMost(_, unit) | Self::Below(_, unit) => unit,
            Self::Exactly(_) | Self::AtLeast(_) => "",
        }
    }
}

impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, number) = match self {
            Self::Exactly(number) => ("", number),
            Self::AtMost(number, _) => ("<= ", number),
            Self::Below(number, _) => ("< ", number),
            Self::AtLeast(number) => (">= ", number),
        };
        let unit = self.unit();
        write!(f, "{sign}{number}{}{unit}", if unit.is_empty() { "" } else { " " })
    }
}

impl Serialize for Required {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Something that was done.
#[derive(Serialize, Clone, Debug)]
pub struct Step {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// In words.
    pub text: String,
}

/// Something that was measured.
#[derive(Serialize, Clone, Debug)]
pub struct Measure {
    /// In words.
    pub what: String,
    /// `null`: what was to be measured never came about.
    pub measured: Option<f64>,
    /// In words.
    pub required: Required,
    /// Whether it is so.
    pub ok: bool,
}

/// All of a scenario.
#[derive(Serialize, Clone, Debug)]
pub struct Findings {
    /// Of the scenario.
    pub name: String,
    /// How many.
    pub hosts: usize,
    /// Who carried the packets.
    pub data_plane: String,
    /// Of this program.
    pub version: &'static str,
    /// `pass` or `fail`.
    pub verdict: &'static str,
    /// What was done.
    pub steps: Vec<Step>,
    /// What was measured.
    pub measures: Vec<Measure>,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What helps to understand a failure: leaks, lost packets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// Longest list of details.
const MOST_DETAILS: usize = 30;

impl Findings {
    /// Nothing yet.
    pub fn new(name: &str, hosts: usize) -> Self {
        Self {
            name: name.to_owned(),
            hosts,
            data_plane: "unknown".to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            verdict: "fail",
            steps: Vec::new(),
            measures: Vec::new(),
            error: None,
            details: Vec::new(),
        }
    }

    /// Something was done.
    pub fn step(&mut self, at: Duration, text: String) {
        self.steps.push(Step { at_s: rounded(at.as_secs_f64()), text });
    }

    /// Something was measured; whether it is as required.
    pub fn measure(&mut self, what: String, measured: Option<f64>, required: Required) -> bool {
        let measured = measured.filter(|measured| measured.is_finite());
        let ok = required.holds(measured);
        self.measures.push(Measure { what, measured: measured.map(rounded), required, ok });
        ok
    }

    /// Something that helps.
    pub fn detail(&mut self, text: String) {
        if self.details.len() < MOST_DETAILS {
            self.details.push(text);
        }
    }

    /// The end. A scenario that measured nothing has shown nothing.
    pub fn judge(&mut self) -> bool {
        let held = self.error.is_none()
            && !self.measures.is_empty()
            && self.measures.iter().all(|measure| measure.ok);
        self.verdict = if held { "pass" } else { "fail" };
        held
    }

    /// For people: the measurements, with what was required beside them.
    pub fn text(&self) -> String {
        let mut rows = vec![["".into(), "measured".into(), "required".into(), String::new()]];
        rows.extend(self.measures.iter().map(|measure| {
            let unit = measure.required.unit();
            let measured = measure.measured.map_or("never".to_owned(), |m| m.to_string());
            [
                measure.what.clone(),
                if unit.is_empty() { measured } else { format!("{measured} {unit}") },
                measure.required.to_string(),
                if measure.ok { "ok" } else { "FAILED" }.to_owned(),
            ]
        }));
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (first, second, third) = (width(0), width(1), width(2));
        let mut out: String = rows
            .iter()
            .map(|[what, measured, required, ok]| {
                format!("{what:<first$}  {measured:>second$}  {required:>third$}  {ok}")
            })
            .fold(String::new(), |out, line| out + line.trim_end() + "\n");
        for line in &self.details {
            out += &format!("  {line}\n");
        }
        if let Some(error) = &self.error {
            out += &format!("ended early: {error}\n");
        }
        let verdict = if self.verdict == "pass" { "PASS" } else { "FAIL" };
        out + &format!("{verdict}: {} on {} hosts, {}", self.name, self.hosts, self.data_plane)
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_can_fail() {
        for (required, good, bad, text) in [
            (Required::Exactly(0.0), 0.0, 1.0, "0"),
            (Required::AtMost(3.0, "s"), 3.0, 3.001, "<= 3 s"),
            (Required::Below(1.0, "s"), 0.999, 1.0, "< 1 s"),
            (Required::AtLeast(1.0), 1.0, 0.0, ">= 1"),
        ] {
            assert!(required.holds(Some(good)), "{text}");
            assert!(!required.holds(Some(bad)), "{text}");
            assert!(!required.holds(None), "{text}");
            assert_eq!(required.to_string(), text);
        }
    }

    #[test]
    fn one_failed_measurement_fails_all() {
        let mut findings = Findings::new("mesh", 3);
        assert!(!findings.judge(), "nothing was measured");
        assert!(findings.measure("lost".into(), Some(0.0), Required::Exactly(0.0)));
        assert!(findings.judge());
        assert!(!findings.measure("back".into(), Some(f64::NAN), Required::AtMost(1.0, "s")));
        assert!(!findings.judge());
        let text = findings.text();
        assert!(text.contains("FAILED") && text.contains("FAIL: mesh") && text.contains("never"));
    }

    #[test]
    fn an_early_end_fails_whatever_was_measured() {
        let mut findings = Findings::new("mesh", 3);
        findings.measure("lost".into(), Some(0.0), Required::Exactly(0.0));
        findings.error = Some("h2 did not start".into());
        assert!(!findings.judge());
        assert!(findings.text().contains("h2 did not start"));
    }

    #[test]
    fn programs_get_numbers_beside_words() {
        let mut findings = Findings::new("mesh", 3);
        findings.step(Duration::from_millis(1234), "began".into());
        findings.measure("back".into(), Some(0.12345), Required::AtMost(1.0, "s"));
        findings.judge();
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json["verdict"], "pass");
        assert_eq!(json["steps"][0]["at_s"], 1.234);
        assert_eq!(json["measures"][0]["measured"], 0.123);
        assert_eq!(json["measures"][0]["required"], "<= 1 s");
        assert_eq!(json["measures"][0]["ok"], true);
    }
}
