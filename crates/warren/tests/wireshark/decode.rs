//! `warren decode` reads the same captures with the same tables as tshark, and finds the same in them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ipsec::sa::Mode;
use rcgen::PKCS_RSA_SHA256;
use serde_json::Value;

use super::capture::Capture;
use super::config::Setup;
use super::lines::Tables;
use super::pair::Pair;
use super::suites::{life, with_other_keys};
use super::tshark::Reading;

/// Types that tshark lists beside payloads: proposals, transforms, and the frames of encrypted payloads.
const NO_PAYLOADS: [u8; 4] = [2, 3, 46, 53];

/// A folder with a capture and its tables, gone with the value.
struct Files(PathBuf);

impl Files {
    fn new(capture: &[u8], tables: Option<&Tables>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("warren-decode-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let files = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&files.0).unwrap();
        fs::write(files.0.join("capture.pcap"), capture).unwrap();
        if let Some(tables) = tables {
            let lines: String = tables.ike.iter().map(|line| format!("{line}\n")).collect();
            fs::write(files.0.join("ikev2_decryption_table"), lines).unwrap();
        }
        files
    }

    fn decode(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
        command.arg("decode").arg(self.0.join("capture.pcap")).args(more);
        command.output().unwrap()
    }

    fn json(&self, keys: bool) -> Value {
        let keys_at = self.0.display().to_string();
        let with_keys = ["--json", "--keys", &keys_at];
        let output = self.decode(if keys { &with_keys } else { &with_keys[..1] });
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ike(decoded: &Value) -> Vec<&Value> {
    let entries = decoded["entries"].as_array().unwrap().iter();
    entries.filter(|entry| entry["kind"] == "ike").collect()
}

fn payloads(entry: &Value) -> usize {
    let count = |key: &str| entry[key].as_array().map_or(0, Vec::len);
    count("payloads") + count("inside")
}

fn agrees(setup: &Setup) {
    let Some(pair) = life(setup) else { return };
    let tables = pair.tables();
    let reading = Reading::of(&pair.capture, &tables);
    let decoded = Files::new(pair.capture.bytes(), Some(&tables)).json(true);
    let (ours, theirs) = (ike(&decoded), reading.frames.iter().filter(|f| f.exchange.is_some()));
    let theirs: Vec<_> = theirs.collect();
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.len() > 20, "{}", ours.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let known = theirs.payloads.iter().filter(|p| !NO_PAYLOADS.contains(p)).count();
        assert_eq!(payloads(ours), known, "{ours} {theirs:?}");
        assert_ne!(ours["encrypted"], "closed", "{ours}");
    }
    let sums = &decoded["sums"];
    let esp = reading.frames.iter().filter(|f| f.is_esp()).count();
    assert_eq!(sums["esp"], esp);
    assert_eq!(
        (&sums["closed"], &sums["bad"], &sums["malformed"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn the_same_as_tshark() {
    agrees(&Setup::new("aes128-sha256-modp2048", "aes128gcm16"));
    let certificate = Some(&PKCS_RSA_SHA256);
    let gcm = Setup::new("aes256gcm16-prfsha384-curve25519", "aes128gcm16");
    agrees(&Setup { certificate, encap: true, v6: true, mode: Mode::Tunnel, ..gcm });
    let ctr = Setup::new("aes256ctr-sha512-curve25519", "aes128gcm16");
    agrees(&Setup { certificate, fragment_size: 600, ..ctr });
}

#[test]
fn without_the_right_keys_messages_stay_closed() {
    let Some(pair) = life(&Setup::new("aes128-sha256-curve25519", "aes128gcm16")) else { return };
    let mut tables = pair.tables();
    let closed = Files::new(pair.capture.bytes(), None).json(false);
    for entry in ike(&closed).iter().filter(|entry| entry["exchange"] != "IKE_SA_INIT") {
        assert_eq!((&entry["encrypted"], payloads(entry)), (&"closed".into(), 0), "{entry}");
    }
    assert!(closed["sums"]["closed"].as_u64().unwrap() > 20);
    for line in &mut tables.ike {
        *line = with_other_keys(line);
    }
    let wrong = Files::new(pair.capture.bytes(), Some(&tables)).json(true);
    assert_eq!(wrong["sums"]["bad"], closed["sums"]["closed"]);
}

#[test]
fn people_get_a_ladder() {
    let Some(pair) = life(&Setup::new("aes128-sha256-curve25519", "aes128gcm16")) else { return };
    let files = Files::new(pair.capture.bytes(), Some(&pair.tables()));
    let keys = files.0.display().to_string();
    let text = |more: &[&str]| {
        let output = files.decode(&[&["--keys", &keys], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = text(&[]);
    let first = plain.lines().nth(1).unwrap();
    assert!(first.contains("0.000000 IKE_SA_INIT request 0 [ SA KE No"), "{first:?}");
    assert!(first.ends_with("->") && plain.lines().nth(3).unwrap().contains(" <--"), "{plain}");
    assert!(plain.contains("IKE_AUTH response 1 [ IDr AUTH"), "{plain}");
    assert!(plain.lines().all(|line| line.chars().count() <= 100), "{plain}");
    let detail = text(&["--detail"]);
    assert!(detail.contains("1 IKE:AES_CBC_128/HMAC_SHA2_256_128"), "{detail}");
    assert_eq!(text(&["--peer", "192.0.2.1"]), plain);
    assert_eq!(text(&["--peer", "192.0.2.99"]).lines().last(), Some(&*nothing(&pair)));
}

fn nothing(pair: &Pair) -> String {
    format!("no IKE and no ESP among {} packets", pair.capture.packets)
}

#[test]
fn what_cannot_be_read_is_named() {
    let good = Capture::new();
    let no_capture = Files::new(b"neither pcap nor pcapng", None);
    let output = no_capture.decode(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this is no capture"), "{output:?}");
    let files = Files::new(good.bytes(), None);
    let table = files.0.join("table");
    let secret = "00112233445566778899aabbccddeeff";
    fs::write(&table, format!("# comment\n\nno line {secret}\n")).unwrap();
    let output = files.decode(&["--keys", &table.display().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("line 3: not eight fields") && !stderr.contains(secret), "{stderr}");
}
