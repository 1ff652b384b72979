//! What a demo measured: as a matrix for people, as one object for programs.

use serde::Serialize;

/// One demo.
#[derive(Serialize, Debug, Clone)]
pub struct Report {
    /// `pass`, or what failed.
    pub verdict: String,
    /// Hosts in the mesh.
    pub hosts: usize,
    /// Pairs of hosts; where they have IPv4 and IPv6 addresses, of addresses of one family.
    pub pairs: usize,
    /// Pairs that both ends call up and that carried packets in both directions.
    pub pairs_up: usize,
    /// Most IKE SAs that one host had with one peer, once settled.
    pub ike_sas_per_pair_max: usize,
    /// Most child SAs that one host had with one peer, once settled.
    pub child_sas_per_pair_max: usize,
    /// Packets that the hosts sent to each other.
    pub packets_sent: u64,
    /// Packets that did not arrive.
    pub packets_lost: u64,
    /// Packets between hosts that were seen on the wire and are neither ESP nor IKE.
    pub cleartext_packets: u64,
    /// ESP packets seen on the wire.
    pub esp_packets: u64,
    /// IKE packets seen on the wire.
    pub ike_packets: u64,
    /// Frames that the watcher of the wire missed: anything but 0 makes the verdict worthless.
    pub capture_drops: u64,
    /// From the first packet until every host had heard from every other; absent if that never came.
    pub seconds_to_all_up: Option<f64>,
    /// Who carried the packets.
    pub data_plane: String,
    /// The manifest's suites.
    pub suites: String,
    /// The hosts, in the order of the matrix; the addresses of a second family after all of the first.
    pub names: Vec<String>,
    /// Their addresses.
    pub addresses: Vec<String>,
    /// Row: from; column: to.
    pub matrix: Vec<Vec<Cell>>,
}

/// One direction of a pair.
#[derive(Serialize, Debug, Clone, Default)]
pub struct Cell {
    /// What the row's host says of the column's.
    pub state: String,
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// IKE SAs with that peer.
    pub ike_sas: usize,
    /// Child SAs with that peer.
    pub child_sas: usize,
    /// Why the pair is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Report {
    /// Sums up, and judges: every check that fails is named.
    pub fn new(names: Vec<String>, addresses: Vec<String>, matrix: Vec<Vec<Cell>>) -> Self {
        let hosts = names.len();
        let is_pair = |i: usize, j: usize| i != j && !matrix[i][j].state.is_empty();
        let others = || {
            matrix.iter().enumerate().flat_map(|(i, row)| {
                row.iter().enumerate().filter(move |(j, _)| is_pair(i, *j)).map(|(_, cell)| cell)
            })
        };
        let up = |cell: &Cell| cell.state == "up" && cell.received > 0;
        let pairs = (0..hosts).flat_map(|i| (i + 1..hosts).map(move |j| (i, j)));
        let pairs: Vec<_> = pairs.filter(|(i, j)| is_pair(*i, *j)).collect();
        let pairs_up =
            pairs.iter().filter(|(i, j)| up(&matrix[*i][*j]) && up(&matrix[*j][*i])).count();
        let sent = others().map(|cell| cell.sent).sum();
        let received: u64 = others().map(|cell| cell.received.min(cell.sent)).sum();
        Self {
            verdict: String::new(),
            hosts,
            pairs: pairs.len(),
            pairs_up,
            ike_sas_per_pair_max: others().map(|cell| cell.ike_sas).max().unwrap_or(0),
            child_sas_per_pair_max: others().map(|cell| cell.child_sas).max().unwrap_or(0),
            packets_sent: sent,
            packets_lost: sent - received,
            cleartext_packets: 0,
            esp_packets: 0,
            ike_packets: 0,
            capture_drops: 0,
            seconds_to_all_up: None,
            data_plane: String::new(),
            suites: String::new(),
            names,
            addresses,
            matrix,
        }
    }

    /// Fills in the verdict from the figures.
    pub fn judge(&mut self) {
        let mut failed = Vec::new();
        let mut require = |holds: bool, what: String| {
            if !holds {
                failed.push(what);
            }
        };
        require(
            self.pairs_up == self.pairs,
            format!("{} of {} pairs up", self.pairs_up, self.pairs),
        );
        require(
            self.ike_sas_per_pair_max == 1,
            format!("{} IKE SAs with one peer", self.ike_sas_per_pair_max),
        );
        require(
            self.child_sas_per_pair_max == 1,
            format!("{} child SAs with one peer", self.child_sas_per_pair_max),
        );
        require(
            self.packets_lost == 0,
            format!("{} of {} packets lost", self.packets_lost, self.packets_sent),
        );
        require(
            self.cleartext_packets == 0,
            format!("{} packets in the clear", self.cleartext_packets),
        );
        // Every delivered packet crossed the wire as ESP, or the watcher looked at the wrong wire.
        require(
            self.esp_packets >= self.packets_sent - self.packets_lost,
            format!("only {} ESP packets on the wire", self.esp_packets),
        );
        require(
            self.capture_drops == 0,
            format!("the watcher missed {} frames", self.capture_drops),
        );
        self.verdict = if failed.is_empty() { "pass".into() } else { failed.join("; ") };
    }

    /// Whether everything holds.
    pub fn passed(&self) -> bool {
        self.verdict == "pass"
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.names.len() <= 24 {
            self.write_matrix(&mut out)
        } else {
            self.write_failures(&mut out)
        }
        let all_up =
            self.seconds_to_all_up.map_or_else(|| "never".into(), |s| format!("after {s:.1} s"));
        let rows = [
            ("pairs up", format!("{} of {}, all {all_up}", self.pairs_up, self.pairs)),
            (
                "SAs per pair",
                format!(
                    "{} IKE, {} child (most)",
                    self.ike_sas_per_pair_max, self.child_sas_per_pair_max
                ),
            ),
            ("packets", format!("{} sent, {} lost", self.packets_sent, self.packets_lost)),
            (
                "on the wire",
                format!(
                    "{} ESP, {} IKE, {} in the clear",
                    self.esp_packets, self.ike_packets, self.cleartext_packets
                ),
            ),
            ("suites", self.suites.clone()),
            ("data plane", self.data_plane.clone()),
        ];
        out.push('\n');
        for (name, value) in rows {
            out.push_str(&format!("{name:<13} {value}\n"));
        }
        out.push_str(&format!(
            "\n{}\n",
            if self.passed() {
                "PASS: every packet between the hosts was encrypted, none was lost".to_owned()
            } else {
                format!("FAIL: {}", self.verdict)
            }
        ));
        out
    }

    /// `ok` is up without loss; otherwise what arrived of what was sent, or the state.
    fn write_matrix(&self, out: &mut String) {
        let width = self.addresses.iter().map(String::len).max().unwrap_or(0);
        let head: String = self.names.iter().map(|name| format!("{name:>5}")).collect();
        out.push_str(&format!("{:<5} {:<width$} {head}\n", "from", "",));
        for (i, row) in self.matrix.iter().enumerate() {
            let cells: String = row
                .iter()
                .enumerate()
                .map(|(j, cell)| format!("{:>5}", if i == j { "·" } else { mark(cell) }))
                .collect();
            out.push_str(&format!("{:<5} {:<width$} {cells}\n", self.names[i], self.addresses[i]));
        }
        self.write_failures(out);
    }

    fn write_failures(&self, out: &mut String) {
        for (i, row) in self.matrix.iter().enumerate() {
            for (j, cell) in row
                .iter()
                .enumerate()
                .filter(|(j, cell)| i != *j && !["ok", ""].contains(&mark(cell)))
                .take(10)
            {
                let reason = cell.reason.as_deref().unwrap_or("");
                out.push_str(&format!(
                    "{} -> {}: {}, {} of {} packets arrived {reason}\n",
                    self.names[i], self.names[j], cell.state, cell.received, cell.sent
                ));
            }
        }
    }
}

fn mark(cell: &Cell) -> &'static str {
    match cell.state.as_str() {
        "" => "",
        "up" if cell.received >= cell.sent => "ok",
        "up" if cell.received > 0 => "loss",
        "up" => "mute",
        "down" => "down",
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Report};

    fn good(hosts: usize) -> Report {
        let cell = Cell {
            state: "up".into(),
            sent: 10,
            received: 10,
            ike_sas: 1,
            child_sas: 1,
            reason: None,
        };
        let names: Vec<String> = (1..=hosts).map(|i| format!("h{i}")).collect();
        let mut report = Report::new(names.clone(), names, vec![vec![cell; hosts]; hosts]);
        report.esp_packets = report.packets_sent;
        report
    }

    #[test]
    fn a_good_run_passes() {
        let mut report = good(3);
        report.judge();
        assert!(report.passed(), "{}", report.verdict);
        assert_eq!((report.pairs, report.pairs_up, report.packets_sent), (3, 3, 60));
    }

    #[test]
    fn every_figure_can_fail_the_run() {
        let breaks: [fn(&mut Report); 7] = [
            |r| r.pairs_up = 2,
            |r| r.ike_sas_per_pair_max = 2,
            |r| r.child_sas_per_pair_max = 2,
            |r| r.packets_lost = 1,
            |r| r.cleartext_packets = 1,
            |r| r.esp_packets = 0,
            |r| r.capture_drops = 1,
        ];
        for (number, spoil) in breaks.iter().enumerate() {
            let mut report = good(3);
            spoil(&mut report);
            report.judge();
            assert!(!report.passed(), "check {number} cannot fail");
        }
    }

    #[test]
    fn a_mute_direction_is_no_pair() {
        let mut matrix = good(2).matrix;
        matrix[0][1].received = 0;
        let names = vec!["h1".to_owned(), "h2".to_owned()];
        assert_eq!(Report::new(names.clone(), names, matrix).pairs_up, 0);
    }
}
