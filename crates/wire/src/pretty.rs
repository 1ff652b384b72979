//! One message on one line, in the notation of strongSwan's log: `IKE_SA_INIT request 0 [ SA KE No ]`.

use std::fmt::{self, Write};

use crate::message::{Header, Message, SkFrame};
use crate::payload::{Delete, Notify, Payload};
use crate::registry::{NotifyType, PayloadType, ProtocolId};

/// One line for a message whose encrypted payloads are read already, or that has none.
pub fn line(header: &Header, payloads: &[Payload]) -> String {
    let mut out = start(header);
    payloads.iter().for_each(|p| {
        let _ = write!(out, " {}", short(p));
    });
    out + " ]"
}

/// A message on several lines: the header, then each payload with what it says. Neither keys nor nonces
/// nor signatures are shown, only their lengths.
pub fn detail(header: &Header, payloads: &[Payload]) -> String {
    let mut out = line(header, payloads);
    let _ = write!(
        out,
        "\n  SPIs {}_i {}_r, version {}.{}, from the {}, {} bytes",
        header.spi_i,
        header.spi_r,
        header.version >> 4,
        header.version & 15,
        if header.flags.initiator { "initiator" } else { "responder" },
        header.length
    );
    for payload in payloads {
        let _ = write!(out, "\n  {}", short(payload));
        detail_of(payload, &mut out);
    }
    out
}

/// A notify type as strongSwan's log writes it, or its registered name.
pub fn notify_name(kind: NotifyType) -> String {
    match NOTIFIES.iter().find(|(k, _)| *k == kind) {
        Some((_, name)) => (*name).to_owned(),
        None => kind.to_string(),
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&start(&self.header))?;
        for payload in &self.payloads {
            write!(f, " {}", short(payload))?;
        }
        if let Some(sk) = &self.sk {
            write!(f, " {sk}")?;
        }
        f.write_str(" ]")
    }
}

/// `SK{256 bytes}`, or `EF(2/3)` for a fragment.
impl fmt::Display for SkFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fragment {
            Some((number, total)) => write!(f, "EF({number}/{total})"),
            None => write!(f, "SK{{{} bytes}}", self.body.len()),
        }
    }
}

fn start(header: &Header) -> String {
    let direction = if header.flags.response { "response" } else { "request" };
    format!("{} {direction} {} [", header.exchange, header.message_id)
}

/// A payload's name: `SA`, `N(COOKIE)`.
pub fn short(payload: &Payload) -> String {
    match payload {
        Payload::Nonce(_) => "No".to_owned(),
        Payload::Notify(notify) => format!("N({})", notify_name(notify.kind)),
        Payload::Unknown(unknown) => match unknown.kind.name() {
            Some(name) => name.to_owned(),
            None => PayloadType(unknown.kind.0).to_string(),
        },
        other => other.kind().to_string(),
    }
}

fn detail_of(payload: &Payload, out: &mut String) {
    let _ = match payload {
        Payload::Sa(proposals) => proposals.iter().try_for_each(|p| {
            write!(out, "\n    {} ", p.number)?;
            if !p.spi.is_empty() {
                write!(out, "SPI {} ", Hex(&p.spi))?;
            }
            write!(out, "{p}")
        }),
        Payload::Ke(ke) => write!(out, " {}, {} bytes", ke.method, ke.data.len()),
        Payload::IdI(id) | Payload::IdR(id) => write!(out, " {}: {id}", id.encode().0),
        Payload::Cert(cert) => write!(out, " {}, {} bytes", cert.encoding, cert.data.len()),
        Payload::CertReq(req) => {
            write!(out, " {}, {} authorities", req.encoding, req.data.len() / 20)
        }
        Payload::Auth(auth) => write!(out, " {}, {} bytes", auth.method, auth.data.len()),
        Payload::Notify(notify) => detail_of_notify(notify, out),
        Payload::Delete(delete) => detail_of_delete(delete, out),
        Payload::TsI(selectors) | Payload::TsR(selectors) => {
            selectors.iter().try_for_each(|ts| write!(out, "\n    {ts}"))
        }
        Payload::VendorId(data) => write!(out, " {}", Hex(&data[..data.len().min(32)])),
        Payload::Nonce(data) | Payload::Cp(data) | Payload::Eap(data) => {
            write!(out, " {} bytes", data.len())
        }
        Payload::Unknown(unknown) => write!(out, " {} bytes", unknown.data.len()),
    };
}

fn detail_of_notify(notify: &Notify, out: &mut String) -> fmt::Result {
    if notify.protocol != ProtocolId::NONE {
        write!(out, " {}", notify.protocol)?;
    }
    if !notify.spi.is_empty() {
        write!(out, " SPI {}", Hex(&notify.spi))?;
    }
    if notify.data.is_empty() { Ok(()) } else { write!(out, " {} bytes", notify.data.len()) }
}

fn detail_of_delete(delete: &Delete, out: &mut String) -> fmt::Result {
    write!(out, " {}", delete.protocol)?;
    delete.spis.iter().try_for_each(|spi| write!(out, " {spi:08x}"))
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Names as in strongSwan's log, for those notifies that appear in everyday exchanges.
const NOTIFIES: &[(NotifyType, &str)] = &[
    (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, "CRIT"),
    (NotifyType::INVALID_IKE_SPI, "INVAL_IKE_SPI"),
    (NotifyType::INVALID_MAJOR_VERSION, "INVAL_MAJOR"),
    (NotifyType::INVALID_SYNTAX, "INVAL_SYN"),
    (NotifyType::INVALID_MESSAGE_ID, "INVAL_MID"),
    (NotifyType::INVALID_SPI, "INVAL_SPI"),
    (NotifyType::NO_PROPOSAL_CHOSEN, "NO_PROP"),
    (NotifyType::INVALID_KE_PAYLOAD, "INVAL_KE"),
    (NotifyType::AUTHENTICATION_FAILED, "AUTH_FAILED"),
    (NotifyType::SINGLE_PAIR_REQUIRED, "SINGLE_PAIR"),
    (NotifyType::NO_ADDITIONAL_SAS, "NO_ADD_SAS"),
    (NotifyType::TS_UNACCEPTABLE, "TS_UNACCEPT"),
    (NotifyType::INVALID_SELECTORS, "INVAL_SEL"),
    (NotifyType::TEMPORARY_FAILURE, "TEMP_FAIL"),
    (NotifyType::CHILD_SA_NOT_FOUND, "NO_CHILD_SA"),
    (NotifyType::INITIAL_CONTACT, "INIT_CONTACT"),
    (NotifyType::SET_WINDOW_SIZE, "SET_WINSIZE"),
    (NotifyType::ADDITIONAL_TS_POSSIBLE, "ADD_TS_POSS"),
    (NotifyType::IPCOMP_SUPPORTED, "IPCOMP_SUPP"),
    (NotifyType::NAT_DETECTION_SOURCE_IP, "NATD_S_IP"),
    (NotifyType::NAT_DETECTION_DESTINATION_IP, "NATD_D_IP"),
    (NotifyType::USE_TRANSPORT_MODE, "USE_TRANSP"),
    (NotifyType::HTTP_CERT_LOOKUP_SUPPORTED, "HTTP_CERT_LOOK"),
    (NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, "ESP_TFC_PAD_N"),
    (NotifyType::NON_FIRST_FRAGMENTS_ALSO, "NON_FIRST_FRAG"),
    (NotifyType::MOBIKE_SUPPORTED, "MOBIKE_SUP"),
    (NotifyType::ADDITIONAL_IP4_ADDRESS, "ADD_4_ADDR"),
    (NotifyType::ADDITIONAL_IP6_ADDRESS, "ADD_6_ADDR"),
    (NotifyType::NO_ADDITIONAL_ADDRESSES, "NO_ADD_ADDR"),
    (NotifyType::UPDATE_SA_ADDRESSES, "UPD_SA_ADDR"),
    (NotifyType::NO_NATS_ALLOWED, "NO_NATS"),
    (NotifyType::AUTH_LIFETIME, "AUTH_LFT"),
    (NotifyType::MULTIPLE_AUTH_SUPPORTED, "MULT_AUTH"),
    (NotifyType::ANOTHER_AUTH_FOLLOWS, "AUTH_FOLLOWS"),
    (NotifyType::REDIRECT_SUPPORTED, "REDIR_SUP"),
    (NotifyType::REDIRECT, "REDIR"),
    (NotifyType::REDIRECTED_FROM, "REDIR_FROM"),
    (NotifyType::EAP_ONLY_AUTHENTICATION, "EAP_ONLY"),
    (NotifyType::CHILDLESS_IKEV2_SUPPORTED, "CHDLESS_SUP"),
    (NotifyType::QUICK_CRASH_DETECTION, "QCD_TOKEN"),
    (NotifyType::SUPPORTED_AUTH_METHODS, "AUTH_METHODS"),
    (NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, "FRAG_SUP"),
    (NotifyType::SIGNATURE_HASH_ALGORITHMS, "HASH_ALG"),
    (NotifyType::USE_PPK, "USE_PPK"),
    (NotifyType::PPK_IDENTITY, "PPK_ID"),
    (NotifyType::NO_PPK_AUTH, "NO_PPK"),
    (NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, "IKE_INT_SUP"),
    (NotifyType::ADDITIONAL_KEY_EXCHANGE, "ADD_KE"),
];
