//! All hosts start at the same instant and talk at once.

use std::time::Duration;

use super::Scenario;
use crate::lab::findings::Required;
use crate::lab::stage::{Sas, Stage, Stopped};

/// `mesh`
pub struct Mesh;

/// A second tunnel that both ends began is gone within this.
const SETTLED: Duration = Duration::from_secs(30);

impl Scenario for Mesh {
    fn name(&self) -> &'static str {
        "mesh"
    }

    fn about(&self) -> &'static str {
        "all hosts start at the same instant, all pairs talk at once"
    }

    fn required(&self) -> &'static str {
        "every pair up; one IKE SA and one pair of child SAs per pair once settled; 0 in the clear"
    }

    fn play(&self, stage: &mut Stage<'_>) -> Result<(), Stopped> {
        let before = stage.wire();
        let pairs = stage.all_pairs();
        stage.step(format!("{} daemons start at the same instant", stage.len()));
        (0..stage.len()).try_for_each(|host| stage.launch(host))?;
        (0..stage.len()).try_for_each(|host| stage.answers(host).map(drop))?;
        let from = stage.talk(pairs.clone())?;
        let settled = stage.settle(&pairs, SETTLED)?;
        let sas = settled.unwrap_or_else(|| stage.all_sas());
        stage.wait(Duration::from_secs(3))?;
        let up = pairs.iter().filter(|(a, b)| a < b).filter(|(a, b)| {
            stage.peer(*a, *b)["state"] == "up" && stage.peer(*b, *a)["state"] == "up"
        });
        let up = up.count() as u64;
        stage.exactly("pairs up", up, pairs.len() as u64 / 2);
        let most = |count: fn(&Sas) -> usize| {
            let counts = pairs.iter().map(|pair| sas.get(pair).map_or(0, count) as f64);
            counts.fold((f64::MAX, 0.0_f64), |(low, high), n| (low.min(n), high.max(n)))
        };
        let (ike, child) = (most(|sas| sas.ike.len()), most(|sas| sas.children.len()));
        for (what, (least, most)) in [("IKE SAs", ike), ("pairs of child SAs", child)] {
            stage.measure(format!("{what} per pair, least"), Some(least), Required::Exactly(1.0));
            stage.measure(format!("{what} per pair, most"), Some(most), Required::Exactly(1.0));
        }
        stage.no_loss("once all pairs talk", from, |_| true)?;
        let seen = stage.wire().since(&before);
        stage.measure("ESP packets on the wire", Some(seen.esp as f64), Required::AtLeast(1.0));
        stage.no_clear("from the start", &before);
        Ok(())
    }
}
