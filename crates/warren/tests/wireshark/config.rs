//! Configurations of the two hosts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::native::Native;
use crypto::{Credentials, Secret};
use ike::config::{Common, Retransmit};
use ike::{Auth, ChildConfig, PeerConfig};
use ipsec::sa::{Limits, Mode, Reqid};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm, date_time_ymd,
};
use wire::selector::TrafficSelector;
use wire::suite_text::{parse_esp, parse_ike};

/// What two hosts agree on.
#[derive(Clone, Copy)]
pub struct Setup {
    pub ike: &'static str,
    pub esp: &'static str,
    pub mode: Mode,
    pub v6: bool,
    pub encap: bool,
    /// `None`: a pre-shared key.
    pub certificate: Option<&'static SignatureAlgorithm>,
    /// Longest IP packet of an encrypted IKE message.
    pub fragment_size: u16,
}

impl Setup {
    pub fn new(ike: &'static str, esp: &'static str) -> Self {
        let fragment_size = ike::config::FRAGMENT_SIZE;
        let (mode, certificate) = (Mode::Transport, None);
        Self { ike, esp, mode, v6: false, encap: false, certificate, fragment_size }
    }

    /// Both hosts' configurations.
    pub fn peers(&self) -> (PeerConfig, PeerConfig) {
        let auth = match self.certificate {
            None => [(); 2].map(|()| {
                Auth::Psk(Secret::new(b"a pre-shared key of good length".to_vec()).into())
            }),
            Some(algorithm) => certificates(algorithm),
        };
        let [a, b] = auth;
        (self.peer(1, 2, a), self.peer(2, 1, b))
    }

    /// UDP packets from one host to the other; in tunnel mode between networks behind them.
    pub fn traffic(&self, from: usize) -> Vec<Vec<u8>> {
        let src = SocketAddr::new(self.inner(from + 1), 40_001);
        let dst = SocketAddr::new(self.inner(2 - from), 40_002);
        let udp = |len| ipsec::packet::udp(src, dst, &vec![7; len]).unwrap();
        [1, 2, 3, 4, 100, 1000].map(udp).to_vec()
    }

    fn peer(&self, local: usize, remote: usize, auth: Auth) -> PeerConfig {
        let child = ChildConfig {
            reqid: Reqid(7),
            mode: self.mode,
            compression: false,
            esp_proposals: [parse_esp(self.esp).expect("an ESP proposal")].into(),
            local_ts: [TrafficSelector::host(self.inner(local))].into(),
            remote_ts: [TrafficSelector::host(self.inner(remote))].into(),
            replay_window: 64,
            rekey_after: Duration::from_secs(8 * 3600),
            limits: Limits::default().into(),
        };
        PeerConfig {
            local: self.outer(local),
            remote: self.outer(remote),
            local_id: None,
            remote_id: None,
            auth,
            ike_proposals: [parse_ike(self.ike).expect("an IKE proposal")].into(),
            child: Arc::new(child),
            common: Arc::new(Common {
                force_encap: self.encap,
                mobike: false,
                prefer_encap: false,
                ike_hard_lifetime: Duration::from_secs(25 * 3600),
                keepalive: Duration::from_secs(20),
                retransmit: Retransmit::default(),
                cluster: None,
            }),
            redirect: false,
            dpd_delay: Some(Duration::from_secs(30)),
            ike_rekey_after: Duration::from_secs(24 * 3600),
            initial_contact: true,
            ppk: None,
            fragment_size: Some(self.fragment_size),
            childless: Default::default(),
        }
    }

    fn outer(&self, host: usize) -> IpAddr {
        let text = if self.v6 { format!("2001:db8::{host}") } else { format!("192.0.2.{host}") };
        text.parse().unwrap()
    }

    fn inner(&self, host: usize) -> IpAddr {
        match self.mode {
            Mode::Transport => self.outer(host),
            Mode::Tunnel => format!("10.0.{host}.1").parse().unwrap(),
        }
    }
}

fn certificates(algorithm: &'static SignatureAlgorithm) -> [Auth; 2] {
    let (ca_key, mut ca) = (KeyPair::generate().unwrap(), params("Fleet CA"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    ["one.example", "two.example"].map(|name| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let leaf = params(name).signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
        let loaded =
            Credentials::load(&Native, &leaf.pem(), &key.serialize_pem(), &[&ca_pem]).unwrap();
        Auth::Certificate(Arc::new(loaded))
    })
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params
}
