//! Debian's strongSwan: charon-systemd with kernel-libipsec as its data plane, so that it runs where the kernel has no ESP.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cell::{Auth, Suite};
use crate::host::{Hosts, OURS, Running, THEIRS, eventually};

/// A running charon.
pub struct StrongSwan<'a> {
    hosts: &'a Hosts,
    dir: PathBuf,
    _running: Running,
}

const CHARON: &str = "/usr/sbin/charon-systemd";
const PLUGINS: &str = "random nonce openssl pem pkcs1 pkcs8 x509 constraints pubkey kernel-libipsec kernel-netlink \
    socket-default vici curve25519 hmac sha1 sha2 aes gcm chapoly kdf";

impl<'a> StrongSwan<'a> {
    /// Starts it and loads its connection `t` with the child `c`.
    pub fn start(hosts: &'a Hosts, auth: Auth, suite: &Suite) -> Result<Self, String> {
        let dir = hosts.dir.join("strongswan");
        for sub in [
            "x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private",
            "rsa", "ecdsa", "bliss", "pkcs8", "pkcs12",
        ] {
            let sub = dir.join("swanctl").join(sub);
            fs::create_dir_all(&sub).map_err(|error| format!("{}: {error}", sub.display()))?;
        }
        write(&dir.join("strongswan.conf"), &daemon_conf(&dir))?;
        write(&dir.join("swanctl/swanctl.conf"), &connection(auth, suite))?;
        if auth == Auth::Rsa {
            copy(&hosts.dir.join("pki/ca.pem"), &dir.join("swanctl/x509ca/ca.pem"))?;
            copy(&hosts.dir.join("pki/theirs.pem"), &dir.join("swanctl/x509/theirs.pem"))?;
            copy(&hosts.dir.join("pki/theirs.key"), &dir.join("swanctl/private/theirs.key"))?;
        }
        let conf = dir.join("strongswan.conf");
        let running = hosts.start("b", CHARON, &[], &[("STRONGSWAN_CONF", &conf)], "charon.out")?;
        let peer = Self { hosts, dir, _running: running };
        if !eventually(Duration::from_secs(10), || peer.dir.join("charon.vici").exists()) {
            return Err(format!("charon did not start: {}", peer.log()));
        }
        peer.swanctl(&["--load-all"])?;
        Ok(peer)
    }

    /// Its version.
    pub fn version() -> String {
        crate::host::run("dpkg-query", &["-W", "-f=${Version}", "charon-systemd"])
            .unwrap_or_else(|_| "unknown".into())
    }

    /// Runs swanctl against it.
    pub fn swanctl(&self, args: &[&str]) -> Result<String, String> {
        let uri = format!("unix://{}", self.dir.join("charon.vici").display());
        let dir = format!("SWANCTL_DIR={}", self.dir.join("swanctl").display());
        let conf = format!("STRONGSWAN_CONF={}", self.dir.join("strongswan.conf").display());
        let mut all = vec![dir.as_str(), conf.as_str(), "swanctl"];
        all.extend(args);
        all.extend(["--uri", uri.as_str()]);
        let output = self.hosts.on("b", "env", &all)?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("swanctl {}: {text}", args.join(" ")))
        }
    }

    /// Established IKE SAs and installed child SAs.
    pub fn sas(&self) -> Result<(usize, usize), String> {
        let list = self.swanctl(&["--list-sas"])?;
        Ok((list.matches("ESTABLISHED").count(), list.matches("INSTALLED").count()))
    }

    /// SPIs of the installed child SAs, as it lists them.
    pub fn child_spis(&self) -> Result<Vec<String>, String> {
        let list = self.swanctl(&["--list-sas"])?;
        let lines = list.lines().map(str::trim);
        Ok(lines
            .filter_map(|line| line.strip_prefix("in "))
            .map(|line| line.split(',').next().unwrap_or("").to_owned())
            .collect())
    }

    /// Its log.
    pub fn whole_log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// `fwmark`: charon's own packets keep to the ordinary routes although the peer itself is behind the
/// tunnel; `allow_peer_ts`: kernel-libipsec then takes selectors that contain the peer.
fn daemon_conf(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "charon-systemd {{
  load = {PLUGINS}
  journal {{ default = -1 }}
  filelog {{ log {{ path = {dir}/log
    default = 1
    flush_line = yes }} }}
  plugins {{
    kernel-netlink {{ fwmark = !0x42 }}
    socket-default {{ fwmark = 0x42 }}
    kernel-libipsec {{ allow_peer_ts = yes }}
    vici {{ socket = unix://{dir}/charon.vici }}
  }}
}}
swanctl {{ load = pem pkcs1 pkcs8 x509 openssl random }}
"
    )
}

fn connection(auth: Auth, suite: &Suite) -> String {
    let (local, remote, secret) = match auth {
        Auth::Psk => (
            "auth = psk".to_owned(),
            "auth = psk".to_owned(),
            format!("secrets {{ ike-1 {{ secret = \"{}\" }} }}", crate::cell::PSK),
        ),
        Auth::Rsa => (
            "auth = pubkey\n    certs = theirs.pem".into(),
            "auth = pubkey\n    cacerts = ca.pem".into(),
            String::new(),
        ),
    };
    let ids = if auth == Auth::Psk {
        (format!("id = {THEIRS}"), format!("id = {OURS}"))
    } else {
        (String::new(), "id = %any".into())
    };
    format!(
        "connections {{ t {{
  version = 2
  local_addrs = {THEIRS}
  remote_addrs = {OURS}
  proposals = {ike}
  encap = yes
  local {{ {local}
    {local_id} }}
  remote {{ {remote}
    {remote_id} }}
  children {{ c {{
    local_ts = {THEIRS}/32
    remote_ts = {OURS}/32
    esp_proposals = {esp}
    mode = tunnel
  }} }}
}} }}
{secret}
",
        ike = suite.ike,
        esp = suite.esp,
        local_id = ids.0,
        remote_id = ids.1,
    )
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(|_| ())
        .map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}
