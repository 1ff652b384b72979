//! The table of properties: each with its reader and its default.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipsec::sa::Mode;

use super::places::Places;
use super::read::{Property, Reader, short};
use super::shape::{self, Section};
use super::source::Span;
use super::yaml::{Entry, Node, Value};
use super::{
    DpdAction, ExpiryPeriods, IkeVersion, Lifetimes, Liveness, LogLevel, Manifest, Start,
    credentials, exceptions, peers, quantity, subnets, suites, windows,
};

/// Every property there is.
pub(crate) const NAMES: &[&str] = &[
    "ipsec_subnets",
    "no_ipsec_subnets",
    "instance_certificate",
    "instance_private_key",
    "ca_certificates",
    "crls",
    "psk",
    "ppk",
    "ppk_id",
    "ppk_required",
    "optional",
    "optional_warn_interval",
    "ike_proposals",
    "esp_proposals",
    "ike_version",
    "mode",
    "dpdaction",
    "dpddelay",
    "force_udp_encapsulation",
    "mobike",
    "prestart_timeout",
    "stop_timeout",
    "log_level",
    "instance_certificate_info_period",
    "instance_certificate_warn_period",
    "instance_certificate_error_period",
    "instance_certificate_critical_period",
    "main_mode_proposals",
    "quick_mode_proposals",
    "compression",
    "policies",
    "ike_lifetime",
    "child_lifetime",
    "child_bytes",
    "child_packets",
    "jitter",
    "start",
    "liveness",
    "cluster",
    "peers",
    "include",
];

/// Those that are joined where several files give them.
pub(crate) const LISTS: &[&str] =
    &["ipsec_subnets", "no_ipsec_subnets", "ca_certificates", "crls", "policies", "peers"];

/// Shorter lifetimes are for tests, longer ones for nobody.
const LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// Timeouts and delays.
const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const PROBES: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3_600);

/// The properties of a section by name; what is `null` counts as not written.
pub(crate) struct Fields<'a> {
    entries: BTreeMap<&'a str, &'a Entry>,
}

impl<'a> Fields<'a> {
    fn new(section: &'a Section) -> Self {
        let mut entries = BTreeMap::new();
        for entry in &section.entries {
            entries.entry(entry.key.as_str()).or_insert(entry);
        }
        Self { entries }
    }

    /// The property, if it has a value.
    pub(crate) fn get<'s>(&'s self, name: &'s str) -> Option<Property<'s>> {
        let entry = self.entry(name)?;
        (!entry.value.is_null()).then_some(Property { name, node: &entry.value })
    }

    /// The property, even without a value.
    pub(crate) fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.get(name).copied()
    }

    fn read<'r, T>(
        &self,
        reader: &mut Reader<'r>,
        name: &str,
        with: impl FnOnce(&mut Reader<'r>, Property<'_>) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entry(name).filter(|entry| !entry.value.is_null())?;
        with(reader, Property { name, node: &entry.value })
    }

    fn written<'s>(&'s self, name: &'s str) -> Option<Property<'s>> {
        self.entry(name).map(|entry| Property { name, node: &entry.value })
    }
}

/// Reads all; what is wrong is in the reader's findings, and then the result is of no use.
pub(crate) fn manifest(reader: &mut Reader<'_>, name: &str, text: &str) -> Option<Manifest> {
    let sections = shape::sections(reader, name, text)?;
    let mut manifest = build(reader, &sections.main);
    if let Some(section) = &sections.windows {
        let half = build(reader, section);
        if half.ipsec_subnets != manifest.ipsec_subnets
            || half.no_ipsec_subnets != manifest.no_ipsec_subnets
        {
            let message = "the subnets of job `ipsec-win` are not those of job `ipsec`";
            let remedy = "copy `ipsec_subnets` and `no_ipsec_subnets` from one to the other: both halves are one fleet";
            reader.found.note(section.at, message, remedy);
        }
        manifest.windows = half.windows.or(manifest.windows);
    }
    Some(manifest)
}

fn build(reader: &mut Reader<'_>, section: &Section) -> Manifest {
    let f = Fields::new(section);
    let (protected, clear) = subnets::both(
        reader,
        f.written("ipsec_subnets"),
        f.written("no_ipsec_subnets"),
        section.at,
    );
    let places = Places::new(&protected.list, &clear.list);
    Manifest {
        credentials: Arc::new(credentials::credentials(reader, &f, section.at)),
        optional: f.read(reader, "optional", Reader::truth).unwrap_or(false),
        optional_warn_interval: Duration::from_secs(
            3600 * integer(reader, &f, "optional_warn_interval", 1..=8760, "hours", 1),
        ),
        ike_proposals: suites::ike(reader, f.get("ike_proposals")),
        esp_proposals: suites::esp(reader, f.get("esp_proposals")),
        ike_version: f.read(reader, "ike_version", ike_version).unwrap_or_default(),
        mode: f.read(reader, "mode", mode).unwrap_or(Mode::Transport),
        compression: f.read(reader, "compression", compression).unwrap_or(false),
        dpdaction: f.read(reader, "dpdaction", dpdaction).unwrap_or_default(),
        dpddelay: time(reader, &f, "dpddelay", SECONDS, 30),
        force_udp_encapsulation: f
            .read(reader, "force_udp_encapsulation", Reader::truth)
            .unwrap_or(false),
        mobike: f.read(reader, "mobike", Reader::truth).unwrap_or(false),
        prestart_timeout: time(reader, &f, "prestart_timeout", SECONDS, 30),
        stop_timeout: time(reader, &f, "stop_timeout", SECONDS, 30),
        log_level: f.read(reader, "log_level", log_level).unwrap_or(LogLevel(1)),
        expiry: expiry(reader, &f),
        windows: windows::windows(
            reader,
            f.get("main_mode_proposals"),
            f.get("quick_mode_proposals"),
        ),
        policies: exceptions::exceptions(reader, f.get("policies")),
        lifetimes: lifetimes(reader, &f),
        start: f.read(reader, "start", start).unwrap_or_default(),
        liveness: liveness(reader, f.get("liveness")),
        cluster: f.read(reader, "cluster", cluster),
        ppk: credentials::ppk(reader, |name| f.get(name)).map(Arc::new),
        peers: peers::peers(reader, f.get("peers"), &places).into(),
        ipsec_subnets: protected.list,
        no_ipsec_subnets: clear.list,
        sources: Default::default(),
        spans: spans(section),
        places,
    }
}

/// The key of a value that has lines of its own, else the value.
fn spans(section: &Section) -> BTreeMap<String, Span> {
    let place = |entry: &Entry| match entry.value.value {
        Value::Scalar(_) => entry.value.span,
        _ => entry.key_span,
    };
    section.entries.iter().map(|entry| (entry.key.clone(), place(entry))).collect()
}

fn integer(
    reader: &mut Reader<'_>,
    f: &Fields<'_>,
    name: &str,
    range: RangeInclusive<i64>,
    unit: &str,
    default: u64,
) -> u64 {
    f.get(name)
        .and_then(|p| reader.number(p, range, unit))
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(default)
}

fn time(
    reader: &mut Reader<'_>,
    f: &Fields<'_>,
    name: &str,
    range: RangeInclusive<Duration>,
    default: u64,
) -> Duration {
    f.get(name).and_then(|p| reader.duration(p, range)).unwrap_or(Duration::from_secs(default))
}

fn compression(reader: &mut Reader<'_>, p: Property<'_>) -> Option<bool> {
    let words = [("none", false), ("deflate", true)];
    let compression = reader.choice(p, &words, &[("yes", "deflate"), ("no", "none")])?;
    if compression {
        let message = "with compression the length of a packet says something of what is in it";
        let remedy = "keep it off where one packet holds a secret and what strangers choose";
        reader.found.note(p.node.span, message, remedy);
    }
    Some(compression)
}

pub(crate) fn ike_version(reader: &mut Reader<'_>, p: Property<'_>) -> Option<IkeVersion> {
    let words = [("ike", IkeVersion::Any), ("ikev2", IkeVersion::V2), ("ikev1", IkeVersion::V1)];
    reader.choice(
        p,
        &words,
        &[("2", "ikev2"), ("1", "ikev1"), ("any", "ike"), ("v2", "ikev2"), ("v1", "ikev1")],
    )
}

pub(crate) fn start(reader: &mut Reader<'_>, p: Property<'_>) -> Option<Start> {
    let synonyms = [("route", "trap"), ("ondemand", "trap"), ("start", "eager"), ("add", "trap")];
    reader.choice(p, &[("trap", Start::Trap), ("eager", Start::Eager)], &synonyms)
}

fn mode(reader: &mut Reader<'_>, p: Property<'_>) -> Option<Mode> {
    reader.choice(p, &[("transport", Mode::Transport), ("tunnel", Mode::Tunnel)], &[])
}

fn dpdaction(reader: &mut Reader<'_>, p: Property<'_>) -> Option<DpdAction> {
    let words = [
        ("restart", DpdAction::Restart),
        ("clear", DpdAction::Clear),
        ("hold", DpdAction::Trap),
        ("trap", DpdAction::Trap),
        ("none", DpdAction::None),
    ];
    reader.choice(p, &words, &[("off", "none"), ("start", "restart")])
}

fn log_level(reader: &mut Reader<'_>, p: Property<'_>) -> Option<LogLevel> {
    if p.node.text().is_some_and(|text| text.trim().parse::<i64>().is_ok()) {
        return reader.number(p, -1..=4, "").map(|level| LogLevel(level as i8));
    }
    let words = [("error", -1), ("warn", 0), ("info", 1), ("debug", 2), ("trace", 3)];
    let synonyms =
        [("warning", "warn"), ("err", "error"), ("verbose", "debug"), ("silent", "error")];
    reader.choice(p, &words, &synonyms).map(LogLevel)
}

fn expiry(reader: &mut Reader<'_>, f: &Fields<'_>) -> ExpiryPeriods {
    let names = ["info", "warn", "error", "critical"]
        .map(|level| format!("instance_certificate_{level}_period"));
    let usual = ExpiryPeriods::default();
    let defaults = [usual.info, usual.warn, usual.error, usual.critical].map(u64::from);
    let mut days = [0u32; 4];
    for (index, name) in names.iter().enumerate() {
        days[index] = integer(reader, f, name, 0..=36_500, "days", defaults[index]) as u32;
    }
    for index in 1..4 {
        if days[index] > days[index - 1]
            && let Some(entry) = f.entry(&names[index]).or(f.entry(&names[index - 1]))
        {
            let message = format!(
                "`{}` ({} days) is longer than `{}` ({} days): the milder one is never seen",
                names[index],
                days[index],
                names[index - 1],
                days[index - 1]
            );
            reader.found.note(
                entry.value.span,
                message,
                "info >= warn >= error >= critical is what is meant",
            );
        }
    }
    ExpiryPeriods { info: days[0], warn: days[1], error: days[2], critical: days[3] }
}

fn lifetimes(reader: &mut Reader<'_>, f: &Fields<'_>) -> Lifetimes {
    Lifetimes {
        ike: time(reader, f, "ike_lifetime", LIFETIME, 24 * 3600),
        child: time(reader, f, "child_lifetime", LIFETIME, 8 * 3600),
        child_bytes: f.get("child_bytes").and_then(|p| amount(reader, p, 1 << 20)),
        child_packets: f.get("child_packets").and_then(|p| amount(reader, p, 1_000)),
        jitter_percent: f.get("jitter").and_then(|p| jitter(reader, p)).unwrap_or(20),
    }
}

fn amount(reader: &mut Reader<'_>, p: Property<'_>, least: u64) -> Option<u64> {
    let text = reader.text(p, "64GiB")?;
    let value = quantity::amount(text).filter(|value| *value >= least);
    if value.is_none() {
        let message = format!("`{}` is no amount from {least} up: `{}`", p.name, short(text));
        reader.error(
            p.node.span,
            message,
            "write a number, or one with a unit: `1000000`, `64GiB`",
        );
    }
    value
}

fn jitter(reader: &mut Reader<'_>, p: Property<'_>) -> Option<u8> {
    let text = reader.text(p, "20 %")?;
    let value = quantity::percent(text).filter(|percent| *percent <= 50);
    if value.is_none() {
        let message = format!("`jitter` must be 0 to 50 percent, found `{}`", short(text));
        reader.error(p.node.span, message, "write `20 %` or `0.2`");
    }
    value
}

fn liveness(reader: &mut Reader<'_>, p: Option<Property<'_>>) -> Option<Liveness> {
    let default =
        Liveness { interval: Duration::from_secs(1), timeout: Duration::from_secs(3), port: None };
    let Some(p) = p else { return Some(default) };
    let Value::Map(entries) = &p.node.value else {
        if matches!(p.node.value, Value::List(_)) {
            reader.expected(p, "a map, or true or false", "liveness: {interval: 1s, timeout: 3s}");
            return None;
        }
        return reader.truth(p)?.then_some(default);
    };
    reader.check_keys(entries, &["interval", "timeout", "port"], "`liveness`");
    let field = |name| of(p.node, name);
    let interval =
        field("interval").and_then(|p| reader.duration(p, PROBES)).unwrap_or(default.interval);
    let timeout = field("timeout")
        .and_then(|p| reader.duration(p, PROBES))
        .unwrap_or((interval * 3).max(default.timeout));
    let port = field("port").and_then(|p| reader.number(p, 1..=65_535, "")).map(|port| port as u16);
    if timeout < interval {
        reader.error(
            p.node.span,
            "`timeout` of the probes is shorter than their `interval`",
            "make it about three times the interval",
        );
    }
    Some(Liveness { interval, timeout, port })
}

fn of<'n>(node: &'n Node, name: &'n str) -> Option<Property<'n>> {
    let entry = node.get(name)?;
    (!entry.value.is_null()).then_some(Property { name, node: &entry.value })
}

fn cluster(reader: &mut Reader<'_>, p: Property<'_>) -> Option<String> {
    let text = reader.text(p, "blue")?.trim();
    let good = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !good {
        let message = format!("`cluster` cannot be a name: `{}`", short(text));
        reader.error(p.node.span, message, "write up to 64 letters, digits, `-`, `_` and `.`");
    }
    good.then(|| text.to_owned())
}
