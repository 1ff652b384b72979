//! A goal: what was measured, beside what, and whether that is enough.

use serde_json::{Value, json};

use crate::print::println;

/// What a figure is held against.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Beside {
    /// A peer's, of the same run.
    Peer(f64),
    /// The bare cryptography's, of the same run.
    Bare(f64),
    /// Nothing: the figure itself is bounded.
    Itself,
}

impl Beside {
    /// Its name and its figure.
    fn figure(self) -> Option<(&'static str, f64)> {
        match self {
            Self::Peer(figure) => Some(("peer", figure)),
            Self::Bare(figure) => Some(("bare", figure)),
            Self::Itself => None,
        }
    }
}

/// One goal.
#[derive(Clone, PartialEq, Debug)]
pub struct Goal {
    /// What is measured, with its unit.
    pub what: String,
    /// Warren's figure; not a number if it could not be measured, which meets no goal.
    pub ours: f64,
    /// What it is held against.
    pub beside: Beside,
    /// The ratio to that, or else the figure itself: at least this, or at most.
    pub wanted: f64,
    /// At least `wanted`, else at most.
    pub at_least: bool,
}

impl Goal {
    /// The ratio, or else the figure itself.
    fn judged(&self) -> f64 {
        self.beside.figure().map_or(self.ours, |(_, theirs)| self.ours / theirs)
    }

    /// Whether that is enough.
    pub fn met(&self) -> bool {
        if self.at_least { self.judged() >= self.wanted } else { self.judged() <= self.wanted }
    }

    /// For a program.
    pub fn shown(&self) -> Value {
        let mut goal = json!({
            "goal": self.what, "warren": self.ours, "met": self.met(),
            (if self.at_least { "at_least" } else { "at_most" }): self.wanted,
        });
        if let Some((name, theirs)) = self.beside.figure() {
            goal[name] = json!(theirs);
            goal["ratio"] = json!(self.judged());
        }
        goal
    }
}

/// For a person: one line each.
pub fn print(goals: &[Goal]) {
    println!("{:<52}{:>10}{:>10}{:>8}", "goal", "warren", "beside", "ratio");
    for goal in goals {
        let (beside, ratio) = match goal.beside.figure() {
            Some((_, theirs)) => (digits(theirs), format!("{:.2}", goal.judged())),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let sign = if goal.at_least { "≥" } else { "≤" };
        println!(
            "{:<52}{:>10}{beside:>10}{ratio:>8}  {sign} {:<5} {}",
            goal.what,
            digits(goal.ours),
            goal.wanted,
            if goal.met() { "met" } else { "MISSED" }
        );
    }
}

/// Three digits, where it has not more of itself.
fn digits(figure: f64) -> String {
    let places = if figure >= 100.0 {
        0
    } else if figure >= 10.0 {
        1
    } else {
        3
    };
    format!("{figure:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(ours: f64, beside: Beside, wanted: f64, at_least: bool) -> Goal {
        Goal { what: String::new(), ours, beside, wanted, at_least }
    }

    #[test]
    fn a_ratio_or_the_figure_itself_is_judged() {
        assert!(goal(250.0, Beside::Peer(100.0), 2.5, true).met());
        assert!(!goal(249.0, Beside::Peer(100.0), 2.5, true).met());
        assert!(goal(1.6, Beside::Bare(1.0), 1.6, false).met());
        assert!(goal(4096.0, Beside::Itself, 4096.0, false).met());
        assert!(!goal(4097.0, Beside::Itself, 4096.0, false).met());
    }

    #[test]
    fn what_could_not_be_measured_is_missed() {
        assert!(!goal(f64::NAN, Beside::Itself, 1.0, false).met());
        assert!(!goal(1.0, Beside::Peer(f64::NAN), 1.0, true).met());
    }
}
