//! Key derivation against NIST CAVP vectors (SP 800-135 IKEv2 KDF, SHA-1).
//!
//! The first is the one that libreswan checks itself with, the second that of a self-test by
//! Cisco for FIPS; both give the material as one string, here cut as AES-CBC-128 with HMAC-SHA1 needs it.

use crypto::Secret;
use crypto::cipher::CipherSpec;
use crypto::native::Native;
use ike::keys::{IkeKeys, derive_child, derive_initial, derive_rekeyed};
use ike::multi_ke::Additional;
use ike::negotiate::{EspSuite, IkeSuite};
use wire::message::IkeSpi;
use wire::registry::{Encr, Integ, Ke, Prf};

use crate::{hex, secret};

struct Vector {
    ni: &'static str,
    nr: &'static str,
    shared: &'static str,
    shared_new: &'static str,
    spi_i: u64,
    spi_r: u64,
    skeyseed: &'static str,
    skeyseed_rekeyed: &'static str,
    keymat: &'static str,
    child: Option<&'static str>,
    child_pfs: Option<&'static str>,
}

const VECTORS: [Vector; 2] = [
    Vector {
        ni: "32b50d5f4a3763f3",
        nr: "9206a04b26564cb1",
        shared: "4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52",
        shared_new: "863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330",
        spi_i: 0x34c9e7c188868785,
        spi_r: 0x3ff77d760d2b2199,
        skeyseed: "a9a7b222b59f8f48645f28a1db5b5f5d7479cba7",
        skeyseed_rekeyed: "63e81194946ebd05df7df5ebf5d8750056bf1f1d",
        keymat: "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002
            a2a63080e514a062768b76606f9fa5e992204fc5a670bde3f10d6b027113936a
            5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd1119
            8af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4",
        child: None,
        child_pfs: None,
    },
    Vector {
        ni: "3651fef5c9c35e93",
        nr: "c09a8b90a3f04d59",
        shared: "d084a30166a50fb7325c3960874a839449ef9741c2f4f947d0201dd8c12692
            73d79509f37e3ca3eb4fa2fe2a28254e289cd3f34dad4eb4df1a07685a4b8a94fa61e2491f
            7598b3ce65547ff133b3f63d1ac4175eaa695033f3cedb026a6873a36455172a8540b8a5d2
            3a0143bed0390ee49b168269d75fffee9fb62be965993c",
        shared_new: "52f00ab174c25d5b7139ae5ff4e8e9eddee5992d2e36adf8a559ffd90dab14
            42e4fbe429d320c0f33552a17d1557fa41ea70e8fb916c4fa27ed52b5f8ebd8461afa78f11
            59159a64055ac5f6319e29c28eae58cbc6847770f32c3fed1d04750484f854790f95e9ec01
            bc5bc461f24966462e35951132930503 8e94deb6dd42c2",
        spi_i: 0x8e5c3ae507221684,
        spi_r: 0xb1f201bb155c3acd,
        skeyseed: "cd2e8050137832245f1dbacc6e4f0a92f94d45d6",
        skeyseed_rekeyed: "3b03bce748c96d5e8306918d2ff89b68f0648da3",
        keymat: "6f1b12cad3cbe097b35430356d869d54cddb0198ec859174d53ceb92dddedbe2
            436db69f60977c58fa63bbb667f8d36920b109baae8f6c61a9ac49feda01843225d080ec55
            39d5881a25521ffb2a0a91874a9c0a27fcc2d717eb8963a9e3a89c7ab264757284c28cf8c3
            ca40576f4220b052b1fb8e9ad60ba3c80557323331a8cbb89f20",
        child: Some(
            "4727dc0ef94eb326ce131cf282fb652faa638ad0ddae3786a11bcc0309876009f8c485
            de011ad962c5b1ca8a41ff8145445749079c5686e26ffebbc342f06981f3da745e11ca0976",
        ),
        child_pfs: Some(
            "b109c21ad4c0797768c1cec9e63554681e48f224bca7f23c20c4ea7041983451e9aa1d
            5408656c8a975ff1b9d9a12c75ffeb64bdecb30174664cccb4e14f1c377b7f6d1525af77c7",
        ),
    },
];

const CIPHER: CipherSpec =
    CipherSpec { encr: Encr::AES_CBC, key_bits: 128, integ: Integ::HMAC_SHA1_96 };
const SUITE: IkeSuite = IkeSuite {
    cipher: CIPHER,
    prf: Prf::HMAC_SHA1,
    ke: Ke::MODP_1024,
    additional: Additional::NONE,
};

fn joined(keys: &IkeKeys) -> Vec<u8> {
    let order =
        [&keys.sk_d, &keys.sk_ai, &keys.sk_ar, &keys.sk_ei, &keys.sk_er, &keys.sk_pi, &keys.sk_pr];
    order.iter().flat_map(|key| key.expose()).copied().collect()
}

fn initial(v: &Vector) -> IkeKeys {
    let (ni, nr, shared) = (hex(v.ni), hex(v.nr), secret(v.shared));
    let (spi_i, spi_r) = (IkeSpi(v.spi_i), IkeSpi(v.spi_r));
    derive_initial(&Native, &SUITE, &ni, &nr, &shared, spi_i, spi_r).unwrap()
}

#[test]
fn initial_keys() {
    for v in &VECTORS {
        let keys = initial(v);
        assert_eq!(joined(&keys), hex(v.keymat));
        assert_eq!([keys.sk_d.len(), keys.sk_ai.len(), keys.sk_ei.len()], [20, 20, 16]);
        // The seed is checked apart: expanding it must give the very same.
        let seed =
            [hex(v.ni), hex(v.nr), v.spi_i.to_be_bytes().into(), v.spi_r.to_be_bytes().into()];
        assert_eq!(expand(v.skeyseed, &seed.concat()), hex(v.keymat));
    }
}

#[test]
fn rekeyed_keys() {
    for v in &VECTORS {
        let old = initial(v);
        let (ni, nr, shared) = (hex(v.ni), hex(v.nr), secret(v.shared_new));
        // The vectors end at SKEYSEED; its expansion with some SPIs must agree.
        let (spi_i, spi_r) = (IkeSpi(1), IkeSpi(2));
        let prf = Prf::HMAC_SHA1;
        let new =
            derive_rekeyed(&Native, &SUITE, prf, &old.sk_d, &[&shared], &ni, &nr, spi_i, spi_r)
                .unwrap();
        let seed = [ni, nr, 1_u64.to_be_bytes().into(), 2_u64.to_be_bytes().into()].concat();
        assert_eq!(joined(&new), expand(v.skeyseed_rekeyed, &seed));
    }
}

#[test]
fn child_keys() {
    let suite = EspSuite { cipher: CIPHER, esn: false, ke: None, additional: Additional::NONE };
    for v in &VECTORS {
        let keys = initial(v);
        let pfs = secret(v.shared_new);
        for (shared, wanted) in [(&[][..], v.child), (&[&pfs][..], v.child_pfs)] {
            let Some(wanted) = wanted else { continue };
            let prf = Prf::HMAC_SHA1;
            let (ni, nr) = (hex(v.ni), hex(v.nr));
            let child = derive_child(&Native, prf, &keys.sk_d, shared, &ni, &nr, &suite).unwrap();
            let order = [&child.i_encr, &child.i_integ, &child.r_encr, &child.r_integ];
            let got: Vec<u8> = order.iter().flat_map(|key| key.expose()).copied().collect();
            assert_eq!(got, hex(wanted));
        }
    }
}

#[test]
fn aead_keys_end_in_their_salt_and_have_no_integrity_key() {
    let cipher = CipherSpec { encr: Encr::AES_GCM_16, key_bits: 256, integ: Integ::NONE };
    let suite = IkeSuite {
        cipher,
        prf: Prf::HMAC_SHA2_512,
        ke: Ke::CURVE25519,
        additional: Additional::NONE,
    };
    let shared = Secret::new(vec![7; 32]);
    let keys =
        derive_initial(&Native, &suite, &[1; 32], &[2; 32], &shared, IkeSpi(1), IkeSpi(2)).unwrap();
    assert_eq!([keys.sk_ei.len(), keys.sk_er.len()], [36, 36]);
    assert!(keys.sk_ai.is_empty() && keys.sk_ar.is_empty());
    assert_eq!([keys.sk_d.len(), keys.sk_pi.len(), keys.sk_pr.len()], [64; 3]);
    assert_ne!(keys.sk_ei, keys.sk_er);
}

/// RFC 7296 2.14: eight bytes of either nonce make up the key of AES-XCBC and AES-CMAC.
#[test]
fn fixed_length_prf_takes_half_its_key_from_either_nonce() {
    for prf in [Prf::AES128_XCBC, Prf::AES128_CMAC] {
        let suite = IkeSuite { prf, ..SUITE };
        let (ni, nr) = ([3; 32], [4; 32]);
        let shared = Secret::new(vec![5; 32]);
        let keys =
            derive_initial(&Native, &suite, &ni, &nr, &shared, IkeSpi(1), IkeSpi(2)).unwrap();
        let key = [[3; 8], [4; 8]].concat();
        let skeyseed = crypto::Provider::prf(&Native, prf, &key, &[&[5; 32]]).unwrap();
        let (spi_i, spi_r) = (1_u64.to_be_bytes(), 2_u64.to_be_bytes());
        let seed: [&[u8]; 4] = [&ni, &nr, &spi_i, &spi_r];
        let keymat =
            crypto::provider::prf_plus(&Native, prf, skeyseed.expose(), &seed, 120).unwrap();
        assert_eq!(joined(&keys), keymat.expose());
    }
}

/// prf+ with HMAC-SHA1, built here from single blocks.
fn expand(skeyseed: &str, seed: &[u8]) -> Vec<u8> {
    let key = hex(skeyseed);
    let mut block = Secret::default();
    let mut out = Vec::new();
    for number in 1..=7_u8 {
        let parts = [block.expose(), seed, &[number]].concat();
        block = crypto::Provider::prf(&Native, Prf::HMAC_SHA1, &key, &[&parts]).unwrap();
        out.extend_from_slice(block.expose());
    }
    out.truncate(132);
    out
}
