//! Messages that others captured read as others say they read, and write back to the same bytes.

mod support;

use support::messages::{self, hex};
use wire::message::{self, Message};
use wire::payload::Payload;
use wire::proposal::Transform;
use wire::registry::{Encr, ExchangeType, HashAlg, Integ, Ke, NotifyType, PayloadType, Prf};

fn notify(message: &Message<'_>, kind: NotifyType) -> Option<Vec<u8>> {
    message.payloads.iter().find_map(|p| match p {
        Payload::Notify(n) if n.kind == kind => Some(n.data.clone()),
        _ => None,
    })
}

fn suites(message: &Message<'_>) -> Vec<String> {
    match &message.payloads[0] {
        Payload::Sa(proposals) => proposals.iter().map(ToString::to_string).collect(),
        other => panic!("SA expected, not {other:?}"),
    }
}

#[test]
fn all_write_back_to_the_same_bytes() {
    for (name, text) in messages::ALL {
        let bytes = hex(text);
        let read = message::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let written = match &read.sk {
            None => message::encode_plain(&read.header, &read.payloads),
            Some(sk) => {
                let header = &read.header;
                let mut out =
                    message::encode_sk_prefix(header, sk.first, sk.fragment, sk.body.len());
                assert_eq!(out, sk.aad, "{name}");
                out.extend(sk.body);
                out
            }
        };
        assert_eq!(written, bytes, "{name}");
    }
}

#[test]
fn wireshark_ccm_request() {
    let bytes = hex(messages::WIRESHARK_CCM_INIT_REQUEST);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(
        m.to_string(),
        "IKE_SA_INIT request 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) N(HASH_ALG) ]"
    );
    assert_eq!(suites(&m), ["IKE:AES_CCM_12_128/PRF_HMAC_SHA2_256/ECP_256"]);
    assert!(m.header.flags.initiator && !m.header.flags.response);
    assert_eq!(m.header.spi_i.0, 0xea68_4d21_597a_fd36);
    let Payload::Ke(ke) = &m.payloads[1] else { panic!() };
    assert_eq!((ke.method, ke.data.len()), (Ke::ECP_256, 64));
    let natd = notify(&m, NotifyType::NAT_DETECTION_SOURCE_IP).unwrap();
    assert_eq!(natd, hex("949c9db5739d75a974a49c184618369b34b7f942"));
    let hashes = notify(&m, NotifyType::SIGNATURE_HASH_ALGORITHMS).unwrap();
    assert_eq!(
        wire::notify::parse_signature_hash_algorithms(&hashes).unwrap(),
        [HashAlg::SHA1, HashAlg::SHA2_256, HashAlg::SHA2_384, HashAlg::SHA2_512]
    );
}

#[test]
fn wireshark_ccm_response() {
    let bytes = hex(messages::WIRESHARK_CCM_INIT_RESPONSE);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(
        m.to_string(),
        "IKE_SA_INIT response 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) N(MULT_AUTH) ]"
    );
    assert_eq!(m.header.spi_r.0, 0xd9fe_2ab2_2dac_23ac);
    assert!(!m.header.flags.initiator && m.header.flags.response);
}

#[test]
fn wireshark_ccm_informational() {
    let bytes = hex(messages::WIRESHARK_CCM_INFORMATIONAL_REQUEST);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(m.to_string(), "INFORMATIONAL request 2 [ SK{29 bytes} ]");
    let sk = m.sk.unwrap();
    assert_eq!(sk.first, PayloadType::DELETE);
    assert_eq!(sk.aad, &bytes[..32]);
    assert_eq!(sk.body, hex("cca0b35de5abc51c9987cbf1f5ecff210eb767cdb85179383b964d78e2"));

    let bytes = hex(messages::WIRESHARK_CCM_INFORMATIONAL_RESPONSE);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(m.to_string(), "INFORMATIONAL response 2 [ SK{21 bytes} ]");
    assert_eq!(m.sk.unwrap().first, PayloadType::NONE);
}

#[test]
fn cisco_with_vendor_ids() {
    let bytes = hex(messages::WIRESHARK_UDP_ENCAP_INIT_REQUEST);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(
        m.to_string(),
        "IKE_SA_INIT request 0 [ SA KE No V V V V N(FRAG_SUP) N(REDIR_SUP) N(HASH_ALG) ]"
    );
    assert_eq!(suites(&m), ["IKE:AES_GCM_16_256/PRF_HMAC_SHA2_256/ECP_256"]);
    let Payload::Nonce(nonce) = &m.payloads[2] else { panic!() };
    assert_eq!(nonce.len(), 40);
}

#[test]
fn aead_offered_with_an_integrity_algorithm() {
    let bytes = hex(messages::BRAINPOOL_INIT_REQUEST);
    let m = message::parse(&bytes).unwrap();
    let Payload::Sa(proposals) = &m.payloads[0] else { panic!() };
    assert_eq!(
        proposals[0].transforms,
        [
            Transform::encr(Encr::AES_GCM_16, Some(128)),
            Transform::integ(Integ::HMAC_SHA2_256_128),
            Transform::prf(Prf::HMAC_SHA2_256),
            Transform::ke(Ke::BRAINPOOL_512),
        ]
    );
}

#[test]
fn four_proposals() {
    let bytes = hex(messages::FOUR_PROPOSALS_INIT_REQUEST);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(
        suites(&m),
        [
            "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/BRAINPOOL_256",
            "IKE:AES_GCM_16_128/PRF_HMAC_SHA2_256/ECP_256",
            "IKE:AES_CTR_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/BRAINPOOL_256",
            "IKE:AES_CTR_128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256",
        ]
    );
    let Payload::Sa(proposals) = &m.payloads[0] else { panic!() };
    assert_eq!(proposals.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn free5gc_eap() {
    let bytes = hex(messages::FREE5GC_AUTH_REQUEST);
    let m = message::parse(&bytes).unwrap();
    assert_eq!(m.header.exchange, ExchangeType::IKE_AUTH);
    assert_eq!(m.header.spi_i.0, 0x0006_f708);
    assert_eq!(m.header.spi_r.0, 0xc9e2_e31f_8b64_053d);
    assert_eq!(m.header.message_id, 3);
    assert_eq!(m.sk.unwrap().first, PayloadType::EAP);
    // IV of 16, three blocks, ICV of 12.
    assert_eq!(m.sk.unwrap().body.len(), 16 + 48 + 12);
}
