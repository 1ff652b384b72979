//! One recorded exchange with all its secrets, and messages of two more: the test data of Android's
//! IKE library (AOSP `packages/modules/IPsec`, Apache-2.0), taken from the wire between it and other daemons.

use crypto::cipher::CipherSpec;
use crypto::native::Native;
use crypto::sign::Scheme;
use crypto::{Provider, Secret};
use ike::auth::{self, Proof};
use ike::keys::{derive_child, derive_initial};
use ike::multi_ke::Additional;
use ike::nat;
use ike::negotiate::{EspSuite, IkeSuite};
use ike::sk::{SkCiphers, SkError, open, open_bytes};
use wire::identity::Identity;
use wire::message::{IkeSpi, parse};
use wire::payload::{AuthPayload, Payload};
use wire::registry::{AuthMethod, Encr, HashAlg, Integ, Ke, NotifyType, Prf};

use crate::{hex, secret};

const SPI_I: IkeSpi = IkeSpi(0x5f54_bf6d_8b48_e6e1);
const SPI_R: IkeSpi = IkeSpi(0x9092_32b3_d1ed_cb5c);
const NI: &str = "c39b7f368f4681b89fa9b7be6465abd7c5f68b6ed5d3b4c72cb4240eb5c46412";
const NR: &str = "9756112ca539f5c25abacc7ee92b73091942a9c06950f98848f1af1694c4ddff";
const SHARED: &str = "c14155dea40056bd9c76fb4819687b7a397582f4cd5aff4b8f441c56e0c08c84
    234147a0ba249a555835a048e3ca29807d057a61dd26eefad9af9c01497005e52858e29fb42eb849
    6731df96a11cce1f51137a9a1b900fa81aee7898e373d4e48b899bbeca091314ecd4b6e412ef4b0f
    ef798f54735f31807424a318287f20e8";
const IKE_SA_INIT_REQUEST: &str = "5f54bf6d8b48e6e1000000000000000021202208
    0000000000000150220000300000002c010100040300000c0100000c800e00800300000803000002
    030000080400000200000008020000022800008800020000b4a2faf4bb54878ae21d638512ece55d
    9236fc5046ab6cef82220f421f3ce6361faf36564ecb6d28798a94aad7b2b4b603ddeaaa5630adb9
    ece8ac37534036040610ebdd92f46bef84f0be7db860351843858f8acf87056e272377f70c9f2d81
    e29c7b0ce4f291a3a72476bb0b278fd4b7b0a4c26bbeb08214c707137607958729000024c39b7f36
    8f4681b89fa9b7be6465abd7c5f68b6ed5d3b4c72cb4240eb5c464122900001c00004004e54f73b7
    d83f6beb881eab2051d8663f421d10b02b00001c00004005d915368ca036004cb578ae3e3fb26850
    9aeab19000000020699369228741c6d4ca094c93e242c9de19e7b7c60000000500000500";
const IKE_AUTH_REQUEST: &str = "5f54bf6d8b48e6e1909232b3d1edcb5c2e20230800000001000000ec
    230000d0b9132b7bb9f658dfdc648e5017a6322a030c316ce55f365760d46426ce5cfc78bd1ed9ab
    ff63eb9594c1bd5846de333ecd3ea2b705d18293b130395300ba92a3510413450a10525cea51b275
    3b4e92b081fd78d995659a98f742278ff9b8fd3e21554865c15c79a5134d66b2744966089e416c60
    a274e44a9a3f084eb02f3bdce1e7de9de8d9a62773ab563b9a69ba1db03c752acb6136452b8a86c4
    1addb4210d68c423efed80e26edca5fa3fe5d0a5ca9375ce332c474b93fb1fa359eb4e81ae6e0f22
    abdad69ba8007d50";

const CIPHER: CipherSpec =
    CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA1_96 };
const SUITE: IkeSuite = IkeSuite {
    cipher: CIPHER,
    prf: Prf::HMAC_SHA1,
    ke: Ke::MODP_1024,
    additional: Additional::NONE,
};

fn keys() -> ike::keys::IkeKeys {
    derive_initial(&Native, &SUITE, &hex(NI), &hex(NR), &secret(SHARED), SPI_I, SPI_R).unwrap()
}

#[test]
fn keys_of_the_ike_sa() {
    let keys = keys();
    assert_eq!(keys.sk_d, secret("c86b56efcf684dcc2877578aef3137167fe0ebf6"));
    assert_eq!(keys.sk_ai, secret("554fbf5a05b7f511e05a30ce23d874db9ef55e51"));
    assert_eq!(keys.sk_ar, secret("36d83420788337ca32ecaa46892c48808dcd58b1"));
    assert_eq!(keys.sk_ei, secret("5cbfd33f75796c0188c4a3a546aec4a1"));
    assert_eq!(keys.sk_er, secret("c33b35fcf29514cd9d8b4a695e1a816e"));
    assert_eq!(keys.sk_pi, secret("094787780ee466e2cb049fa327b43908bc57e485"));
    assert_eq!(keys.sk_pr, secret("a30e6b08be56c0e6bff4744143c75219299e1beb"));
}

#[test]
fn keys_of_the_first_child() {
    let suite = EspSuite { cipher: CIPHER, esn: false, ke: None, additional: Additional::NONE };
    let sk_d = keys().sk_d;
    let child =
        derive_child(&Native, Prf::HMAC_SHA1, &sk_d, &[], &hex(NI), &hex(NR), &suite).unwrap();
    assert_eq!(child.i_encr, secret("1b865cea6e2c23973e8c5452adc5cd7d"));
    assert_eq!(child.i_integ, secret("a7a5a44f7ef4409657206c7dc52b7e692593b51e"));
    assert_eq!(child.r_encr, secret("5e82fedacc6dcb0756ddd7553907ebd1"));
    assert_eq!(child.r_integ, secret("cde612189fd46de870faec04f92b40b0bfdbd9e1"));
}

/// The whole road of a responder: derive, open IKE_AUTH, check the pre-shared key.
#[test]
fn ike_auth_with_a_pre_shared_key() {
    let keys = keys();
    let responder = SkCiphers::new(&Native, &SUITE, &keys, false).unwrap();
    let bytes = hex(IKE_AUTH_REQUEST);
    let message = parse(&bytes).unwrap();
    let payloads = open(&message.sk.unwrap(), &*responder.r#in).unwrap();

    let id = payloads.iter().find_map(|p| match p {
        Payload::IdI(id) => Some(id),
        _ => None,
    });
    assert_eq!(id, Some(&Identity::Ipv4([10, 80, 80, 13].into())));
    let auth_payload = payloads.iter().find_map(|p| match p {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    });
    let Ok(Proof::Psk(mac)) = auth::parse(auth_payload.unwrap()) else { panic!("not a PSK") };

    let init = hex(IKE_SA_INIT_REQUEST);
    let prf = Prf::HMAC_SHA1;
    let octets =
        auth::signed_octets(&Native, prf, &init, &hex(NR), &keys.sk_pi, id.unwrap()).unwrap();
    let psk = Secret::new(b"juniper123".to_vec());
    assert!(auth::check_psk(&Native, prf, &psk, &octets, &mac).unwrap());
    assert_eq!(&auth::psk_payload(&Native, prf, &psk, &octets).unwrap(), auth_payload.unwrap());

    let wrong = Secret::new(b"juniper124".to_vec());
    assert!(!auth::check_psk(&Native, prf, &wrong, &octets, &mac).unwrap());
    assert!(!auth::check_psk(&Native, prf, &psk, &octets, &mac[..19]).unwrap());
    assert!(!auth::check_psk(&Native, prf, &psk, &octets[1..], &mac).unwrap());
}

#[test]
fn every_flipped_bit_of_ike_auth_is_noticed() {
    let responder = SkCiphers::new(&Native, &SUITE, &keys(), false).unwrap();
    let good = hex(IKE_AUTH_REQUEST);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let Ok(message) = parse(&bytes) else { continue };
        let Some(frame) = message.sk else { continue };
        assert_eq!(open(&frame, &*responder.r#in), Err(SkError::BadIcv), "byte {at}");
    }
    // Reflected to its own sender it does not verify either.
    let initiator = SkCiphers::new(&Native, &SUITE, &keys(), true).unwrap();
    let frame = parse(&good).unwrap().sk.unwrap();
    assert_eq!(open(&frame, &*initiator.r#in), Err(SkError::BadIcv));
}

#[test]
fn nat_detection_hash() {
    let source = "10.80.80.13:500".parse().unwrap();
    let wanted = hex("e54f73b7d83f6beb881eab2051d8663f421d10b0");
    assert_eq!(nat::hash(&Native, SPI_I, IkeSpi(0), source).unwrap(), wanted);
}

#[test]
fn nat_detection_in_a_recorded_request() {
    let bytes = hex(IKE_SA_INIT_REQUEST);
    let message = parse(&bytes).unwrap();
    let source = |text: &str| text.parse().unwrap();
    let state = |remote: &str| {
        let payloads = &message.payloads;
        let local = source("10.80.80.80:500");
        nat::detect(&Native, payloads, SPI_I, IkeSpi(0), local, source(remote)).unwrap().unwrap()
    };
    assert!(!state("10.80.80.13:500").remote_behind);
    assert!(state("10.80.80.13:501").remote_behind);
    assert!(state("10.80.80.14:500").remote_behind);
}

/// A later IKE_AUTH request, nothing but AUTH in it, under AES-GCM-256 (RFC 5282).
#[test]
fn aes_gcm_message() {
    let bytes =
        hex("77c708b4523e39a471dc683c1d4f21362e202308000000050000006127000045fbd69d9ee2dafc5e
        7c03a0106761065b28fa8d11aed6046f7f8af117e44da7635be6e0dfafcb0a387c53fb46ba5d6fa9
        509161915929de97b7fbe23dc65723b0fe");
    let key = hex("7c04513660dec572d896105254ef92608054f8e6ee19e79ce52ab8697b2b5f2c2aa90c29");
    let spec = CipherSpec { encr: Encr::AES_GCM_16, key_bits: 256, integ: Integ::NONE };
    let cipher = Native.cipher(spec, &key, &[]).unwrap();
    let frame = parse(&bytes).unwrap().sk.unwrap();
    assert_eq!(
        open_bytes(&frame, &*cipher).unwrap(),
        hex("000000280200000033233837e909ec805d56151bef5b1fa9b8e25b32419c9b3fc96ee699ec29d501")
    );
    let payloads = open(&frame, &*cipher).unwrap();
    assert!(matches!(payloads.as_slice(), [Payload::Auth(a)] if a.method == AuthMethod::PSK));
}

/// The second of two fragments, AES-GCM-256 (RFC 7383).
#[test]
fn aes_gcm_fragment() {
    let bytes =
        hex("77c708b4523e39a471dc683c1d4f2136352023200000000100000113000000f7000200026faf9e5c
        04c67571871681d44301489f99fd78d318b0517a5a99bf6a3e1770f43d7d997c9e0d186038d16df3
        fd525eda821f80b3a40fc6bce397ac67539e40042919a5e9af38c70881d092a8571f0e131f594c0e
        8d6b84ea116f0c95619439b0a267b35bc47dac72bbfb3d3776feb386d7d4f819b0248f52f60bf437
        1ab6384e37819a9685c27d8e41abe30cd6f60905dd5c05c351ec0a1fcf9b99360161d2f34dcf6401
        829df9392121d88e2201d279200e25d750678af6a7f4892a5c8d4a7358ec50cdf12cfa7652488f75
        6ba6d07441e9a27aad3976ac8a705ff796857cb2df9ce360c3992e0285b34834255b06");
    let key = hex("955ed949d6f18857220e97b17d9285c830a39f8d4dc46ab43943668093c62a3d66664f8c");
    let spec = CipherSpec { encr: Encr::AES_GCM_16, key_bits: 256, integ: Integ::NONE };
    let cipher = Native.cipher(spec, &key, &[]).unwrap();
    let frame = parse(&bytes).unwrap().sk.unwrap();
    assert_eq!(frame.fragment, Some((2, 2)));
    let plain = open_bytes(&frame, &*cipher).unwrap();
    assert!(plain.starts_with(&hex("0fce6e996f4936ec8db8097339c371c686be75f4")));
    assert!(plain.ends_with(&hex("14512032b005827c000000090100000501")));
    assert_eq!(plain.len(), 0x113 - 28 - 8 - 8 - 16 - 1);
}

/// Method 14 with RSA and SHA-256 as it went over the wire.
#[test]
fn digital_signature_payload() {
    let body =
        hex("0f300d06092a864886f70d01010b05006f76af4150d653c5d4136b9f69d905849bf075c563e6d14c
        cda42361ec3e7d12c72e2dece5711ea1d952f7b8e12c5d982aa4efdaeac36a02b222aa96242cc424");
    let signature = body[16..].to_vec();
    let payload = AuthPayload { method: AuthMethod::DIGITAL_SIGNATURE, data: body };
    let scheme = Scheme::RsaPkcs1(HashAlg::SHA2_256);
    assert_eq!(auth::parse(&payload).unwrap(), Proof::Signature(scheme, signature.clone()));
    assert_eq!(auth::signature_payload(scheme, &signature), payload);
    // Every shorter form is refused, or is a signature that is too short to verify.
    for len in 0..16 {
        let data = payload.data[..len].to_vec();
        let cut = AuthPayload { method: AuthMethod::DIGITAL_SIGNATURE, data };
        assert!(auth::parse(&cut).is_err(), "{len} bytes");
    }
}

#[test]
fn recorded_signature_hash_algorithms() {
    let hashes = auth::parse_hash_algorithms(&hex("0001000200030004"));
    assert_eq!(hashes, [HashAlg::SHA1, HashAlg::SHA2_256, HashAlg::SHA2_384, HashAlg::SHA2_512]);
    assert_eq!(auth::parse_hash_algorithms(&hex("000200")), [HashAlg::SHA2_256]);
    let own = auth::hash_algorithms();
    assert_eq!(own.kind, NotifyType::SIGNATURE_HASH_ALGORITHMS);
    assert_eq!(own.data, hex("0002000300040005"));
}
