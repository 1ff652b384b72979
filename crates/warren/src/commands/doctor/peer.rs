//! One peer: what the daemon says of it, the way there, whether it answers IKE, and whether packets pass the tunnel.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use linux::datagram::{Outgoing, RecvBatch};
use linux::echo::{Echo, Reply};
use linux::raw::Ip;
use linux::route::Rtnl;
use linux::udp::UdpSocket;
use linux::userspace::{MARK, PORTS};
use mesh::Target;
use serde_json::Value;
use wire::message::{Flags, Header, IkeSpi};
use wire::registry::{ExchangeType, PayloadType};

use super::Scene;
use super::finding::{Finding, Findings};
use crate::client;
use crate::commands::status::encode;
use crate::exit::Failure;

/// Peers that are named one by one where no peer was asked for.
const MOST_NAMED: usize = 10;
/// A question is sent so often …
const TRIES: usize = 4;
/// … and an answer waited for so long each time.
const PATIENCE: Duration = Duration::from_millis(400);
/// Four zero bytes tell IKE from ESP on port 4500 (RFC 7296 2.23).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// All peers, as the daemon sees them.
pub fn check_all(scene: &Scene<'_>, all: &mut Vec<Finding>) {
    let mut found = Findings::of("peers", all);
    let Some(status) = &scene.status else {
        return found.skipped("tunnels", "no daemon answers");
    };
    let peers = status["peers"].as_array().map_or(&[][..], Vec::as_slice);
    let up = peers.iter().filter(|peer| peer["state"] == "up").count();
    let idle = peers.iter().filter(|peer| peer["state"] == "idle").count();
    found.ok("tunnels", format!("{up} of {} up, {idle} idle", peers.len()));
    let troubled: Vec<&Value> = peers.iter().filter(|peer| is_troubled(peer)).collect();
    for peer in troubled.iter().take(MOST_NAMED) {
        let remedy = format!("`warren doctor {}`", text(&peer["address"]));
        let what =
            format!("{} is {}: {}", label(peer), text(&peer["state"]), text(&peer["reason"]));
        if peer["state"] == "up" {
            found.warning("tunnel", what, remedy);
        } else {
            found.error("tunnel", what, remedy);
        }
    }
    if troubled.len() > MOST_NAMED {
        let text = format!("{} more: `warren status` lists them", troubled.len() - MOST_NAMED);
        found.skipped("tunnel", text);
    }
}

/// Those that an operator took down, or that nobody asked for, are as they are wanted.
fn is_troubled(peer: &Value) -> bool {
    !peer["last_error"].is_null()
        || ["network_down", "ipsec_broken", "peer_down"].contains(&text(&peer["verdict"]))
}

fn label(peer: &Value) -> String {
    let name = peer["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}{name}", text(&peer["address"]))
}

/// One peer: an address, a name, a SPI.
pub fn check(scene: &Scene<'_>, peer: &str, all: &mut Vec<Finding>) -> Result<(), Failure> {
    let path = format!("/v1/status?peer={}", encode(peer));
    let row = match &scene.status {
        Some(_) => Some(client::get(scene.control, &path)?),
        None => None,
    };
    let address = match &row {
        Some(row) => text(&row["address"]).parse().ok(),
        None => without_daemon(scene, peer),
    };
    let Some(address) = address else {
        return Err(Failure::No(format!(
            "no peer is known as `{peer}`; without a daemon only addresses and the manifest's names are"
        )));
    };
    let mut found = Findings::of(format!("peer {address}"), all);
    match &row {
        Some(row) => tunnel(row, &mut found),
        None => found.skipped("tunnel", "no daemon answers"),
    }
    if let Some(accepted) = &scene.accepted
        && !matches!(accepted.manifest.place_of(address), mesh::manifest::Place::Protected(_))
    {
        let text = "it lies in no protected subnet of this manifest: traffic passes in the clear";
        found.warning("manifest", text, format!("`warren explain SRC {address}`, `warren check`"));
    }
    let Some(local) = scene.address else {
        found.skipped("route", "this host's address in the mesh is not known");
        return Ok(());
    };
    route(local, address, &mut found);
    for port in PORTS {
        ike_answers(SocketAddr::new(address, port), &mut found);
    }
    if row.as_ref().is_some_and(|row| row["state"] == "up") {
        inside(scene, local, address, &mut found);
    } else {
        found.skipped("inside", "there is no tunnel to send through");
    }
    Ok(())
}

fn without_daemon(scene: &Scene<'_>, peer: &str) -> Option<IpAddr> {
    match peer.parse() {
        Ok(Target::Address(address)) => Some(address),
        Ok(Target::Name(name)) => {
            let peers = &scene.accepted.as_ref()?.manifest.peers;
            let named = peers.iter().find(|peer| peer.name.as_deref() == Some(&name));
            named.map(|peer| peer.address)
        }
        _ => None,
    }
}

fn tunnel(row: &Value, found: &mut Findings<'_>) {
    let (state, reason) = (text(&row["state"]), text(&row["reason"]));
    let what = format!("{state}, verdict {}: {reason}", text(&row["verdict"]));
    match (state, text(&row["verdict"])) {
        ("up", _) => found.ok("tunnel", what),
        ("idle", _) => found.ok("tunnel", format!("{what}; `warren up` starts it")),
        (_, "unknown") => found.warning("tunnel", what, "`warren monitor` shows what happens next"),
        (_, verdict) => found.error("tunnel", what, remedy(verdict)),
    }
    if let Some(error) = row["last_error"].as_str() {
        let retry = row["retry_in_s"].as_u64().map(|s| format!("; next attempt in {s} s"));
        let what = format!("{error}{}", retry.unwrap_or_default());
        found.warning("last error", what, "`warren trace` shows the handshakes with this peer");
    }
    let children = row["child_sas"].as_array().map_or(&[][..], Vec::as_slice);
    for child in children {
        let count = |key: &str| child[key].as_u64().unwrap_or(0);
        found.ok(
            "child SA",
            format!(
                "{} in ({} packets), {} out ({} packets), {} {}{}",
                text(&child["spi_in"]),
                count("packets_in"),
                text(&child["spi_out"]),
                count("packets_out"),
                text(&child["suite"]),
                text(&child["mode"]),
                if child["encap"] == true { " in UDP" } else { "" },
            ),
        );
    }
    if state == "up" && children.is_empty() {
        found.error("child SA", "there is none", "`warren restart` makes the tunnel anew");
    }
}

fn remedy(verdict: &str) -> &'static str {
    match verdict {
        "network_down" => {
            "packets do not get there: routes, cables, firewalls on the way; not IPsec"
        }
        "peer_down" => {
            "the host is there and its daemon does not answer: `systemctl status warren` on it"
        }
        _ => {
            "compare manifests, certificates and clocks of both hosts: `warren doctor` on the other one"
        }
    }
}

fn route(local: IpAddr, peer: IpAddr, found: &mut Findings<'_>) {
    let looked_up = Rtnl::open().and_then(|mut rtnl| {
        let outer = rtnl.get_route(peer, MARK)?;
        let links = rtnl.links()?;
        let name = links.into_iter().find(|link| link.index == outer.interface).map(|l| l.name);
        Ok((outer, name.unwrap_or_default()))
    });
    match looked_up {
        Ok((outer, name)) => {
            let via = outer.gateway.map_or("on the link".to_owned(), |via| format!("via {via}"));
            let text = format!("{via} by {name}, packets of {} bytes", outer.mtu);
            match outer.src {
                Some(src) if src != local && src.is_ipv4() == local.is_ipv4() => found.ok(
                    "route",
                    format!("{text}; others would go from {src}, Warren's go from {local}"),
                ),
                _ => found.ok("route", text),
            }
        }
        Err(error) => found.error("route", error.to_string(), "`ip route add …`"),
    }
}

/// A question that every IKEv2 daemon may answer without a tunnel, without cryptography and without keeping anything: a
/// message of a version that does not exist yet (RFC 7296 2.5).
fn ike_answers(remote: SocketAddr, found: &mut Findings<'_>) {
    let (check, port) = ("IKE in the clear", remote.port());
    match ask(remote) {
        Ok(Some(after)) => {
            let ms = after.as_secs_f64() * 1e3;
            found.ok(check, format!("UDP {port} answers, after {ms:.1} ms"));
        }
        Ok(None) => found.warning(
            check,
            format!("UDP {port} does not answer {TRIES} questions"),
            "the host, its daemon, or a firewall on the way; some other daemons answer no such question",
        ),
        Err(error) => found.skipped(check, error),
    }
}

fn ask(remote: SocketAddr) -> Result<Option<Duration>, String> {
    let ip = Ip::of(remote.ip());
    let socket = UdpSocket::bind(ip, 0, MARK).map_err(|error| error.to_string())?;
    let seed = linux::random::os_seed().map_err(|error| error.to_string())?;
    let spi = IkeSpi(u64::from_be_bytes(*seed.first_chunk().unwrap_or(&[1; 8])) | 1);
    let natt = remote.port() == 4500;
    let question = question(natt, spi);
    let begun = Instant::now();
    let mut batch = RecvBatch::new(2048);
    for _ in 0..TRIES {
        let mut refused = None;
        socket.send(&[Outgoing::new(remote, &question)], |_, errno| refused = Some(errno));
        if let Some(errno) = refused {
            return Err(format!("it cannot be sent: {}", linux::errno::explain(errno)));
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            socket.receive(&mut batch).map_err(|error| error.to_string())?;
            let mut from_there = batch.iter().filter(|got| got.remote.ip() == remote.ip());
            if from_there.any(|got| answers(got.bytes, natt, spi)) {
                return Ok(Some(begun.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(None)
}

fn question(natt: bool, spi_i: IkeSpi) -> Vec<u8> {
    let mut out = if natt { NON_ESP_MARKER.to_vec() } else { Vec::new() };
    let header = Header {
        spi_i,
        spi_r: IkeSpi(0),
        next_payload: PayloadType(0),
        version: 0x30,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags { initiator: true, version: false, response: false },
        message_id: 0,
        length: Header::LEN as u32,
    };
    header.write(&mut out);
    out
}

fn answers(bytes: &[u8], natt: bool, spi: IkeSpi) -> bool {
    let message = if natt { bytes.strip_prefix(&NON_ESP_MARKER) } else { Some(bytes) };
    let header = message.and_then(|message| Header::parse(message).ok());
    header.is_some_and(|header| header.spi_i == spi && header.flags.response)
}

/// An echo request that the policies protect, so that it goes and comes through the child SA.
fn inside(scene: &Scene<'_>, local: IpAddr, peer: IpAddr, found: &mut Findings<'_>) {
    let protocol = if peer.is_ipv4() { 1 } else { 58 };
    let path = format!("/v1/explain?src={local}&dst={peer}&protocol={protocol}");
    let decision = client::get(scene.control, &path).ok();
    let decision = decision.as_ref().map_or("", |answer| text(&answer["decision"]));
    if !decision.starts_with("protect") {
        return found.skipped("inside", format!("the policies say of ICMP: {decision}"));
    }
    let mut echo = match Echo::open(local, peer) {
        Ok(echo) => echo,
        Err(error) => return found.skipped("inside", error.to_string()),
    };
    for _ in 0..TRIES {
        match echo.ask(100, PATIENCE) {
            Reply::Answered(after) => {
                let ms = after.as_secs_f64() * 1e3;
                return found.ok(
                    "inside",
                    format!("an echo request came back through the tunnel after {ms:.1} ms"),
                );
            }
            Reply::Unreachable(errno) => {
                let why = linux::errno::explain(errno);
                return found.error(
                    "inside",
                    format!("nothing can be sent: {why}"),
                    "`ip route get PEER`",
                );
            }
            Reply::Silence | Reply::TooBig => {}
        }
    }
    found.warning(
        "inside",
        format!("{TRIES} echo requests through the tunnel were not answered"),
        "the peer's firewall may drop them (inside, after decryption); if its counters above do not \
         grow either, ESP is dropped on the way: let IP protocol 50 pass, or try `force_udp_encapsulation: true`",
    );
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{answers, question};
    use wire::message::{Header, IkeSpi};

    #[test]
    fn a_question_is_a_header_of_a_version_to_come() {
        let spi = IkeSpi(7);
        for (natt, skip) in [(false, 0), (true, 4)] {
            let sent = question(natt, spi);
            let header = Header::parse(&sent[skip..]).unwrap();
            assert_eq!((header.version, header.length as usize), (0x30, sent.len() - skip));
            assert!(!answers(&sent, natt, spi), "it is no answer to itself");
            let mut back = sent.clone();
            back[skip + 19] |= 0x20;
            assert!(answers(&back, natt, spi) && !answers(&back, natt, IkeSpi(8)));
        }
        assert!(!answers(&[], false, spi));
    }
}
