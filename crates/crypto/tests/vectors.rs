//! Known answers from RFCs and NIST.

mod common;

use common::{field, hex, records, spec, to_hex};
use crypto::native::Native;
use crypto::prf::prf_plus;
use crypto::provider::Provider;
use crypto::toy::Toy;
use wire::registry::{Encr, HashAlg, Integ, Ke, Prf};

#[test]
fn hmac_of_rfc_2202_and_rfc_4231() {
    let files = [
        (Prf::HMAC_SHA1, include_str!("vectors/rfc-2202-sha1.txt")),
        (Prf::HMAC_SHA2_256, include_str!("vectors/rfc-4231-sha256.txt")),
        (Prf::HMAC_SHA2_384, include_str!("vectors/rfc-4231-sha384.txt")),
        (Prf::HMAC_SHA2_512, include_str!("vectors/rfc-4231-sha512.txt")),
    ];
    for (prf, text) in files {
        let all = records(text);
        assert!(all.len() >= 5, "{prf}: {} vectors", all.len());
        for record in &all {
            let (key, message, mac) =
                (field(record, "KEY"), field(record, "MSG"), field(record, "MD"));
            let (a, b) = message.split_at(message.len() / 3);
            let out = Native.prf(prf, &key, &[a, &[], b]).unwrap();
            assert_eq!(to_hex(out.expose()), to_hex(&mac), "{prf}");
        }
    }
}

#[test]
fn cmac_of_sp_800_38b() {
    let all = records(include_str!("vectors/nist-800-38b-aes128.txt"));
    assert_eq!(all.len(), 4);
    for record in &all {
        let out = Native
            .prf(Prf::AES128_CMAC, &field(record, "KEY"), &[&field(record, "MESSAGE")])
            .unwrap();
        assert_eq!(out.expose(), field(record, "OUTPUT"));
    }
}

/// RFC 4615 4: keys of 18, 16 and 10 bytes.
#[test]
fn cmac_prf_with_keys_of_other_lengths() {
    let message = hex("000102030405060708090a0b0c0d0e0f10111213");
    let cases = [
        ("000102030405060708090a0b0c0d0e0fedcb", "84a348a4a45d235babfffc0d2b4da09a"),
        ("000102030405060708090a0b0c0d0e0f", "980ae87b5f4c9c5214f5b6a8455e4c2d"),
        ("00010203040506070809", "290d9e112edb09ee141fcf64c0b72f3d"),
    ];
    for (key, expected) in cases {
        assert_eq!(
            to_hex(Native.prf(Prf::AES128_CMAC, &hex(key), &[&message]).unwrap().expose()),
            expected
        );
    }
}

/// RFC 3566 4.6 and RFC 4434 2.
#[test]
fn xcbc_of_rfc_3566_and_rfc_4434() {
    let counting: Vec<u8> = (0..=0x21).collect();
    let key = hex("000102030405060708090a0b0c0d0e0f");
    let cases = [
        (0, "75f0251d528ac01c4573dfd584d79f29"),
        (3, "5b376580ae2f19afe7219ceef172756f"),
        (16, "d2a246fa349b68a79998a4394ff7a263"),
        (20, "47f51b4564966215b8985c63055ed308"),
        (32, "f54f0ec8d2b9f3d36807734bd5283fd4"),
        (34, "becbb3bccdb518a30677d5481fb6b4d8"),
    ];
    for (len, expected) in cases {
        let out = Native.prf(Prf::AES128_XCBC, &key, &[&counting[..len]]).unwrap();
        assert_eq!(to_hex(out.expose()), expected, "{len} bytes");
    }
    let zeros = Native.prf(Prf::AES128_XCBC, &key, &[&[0; 1000]]).unwrap();
    assert_eq!(to_hex(zeros.expose()), "f0dafee895db30253761103b5d84528f");
    for (key, expected) in [
        ("00010203040506070809", "0fa087af7d866e7653434e602fdde835"),
        ("000102030405060708090a0b0c0d0e0fedcb", "8cd3c93ae598a9803006ffb67c40e9e4"),
    ] {
        let out = Native.prf(Prf::AES128_XCBC, &hex(key), &[&counting[..20]]).unwrap();
        assert_eq!(to_hex(out.expose()), expected);
    }
}

/// A case of NIST's CAVP for the IKEv2 key derivation (SP 800-135).
#[test]
fn ikev2_key_derivation_of_nist_cavp() {
    let (ni, nr) = (hex("32b50d5f4a3763f3"), hex("9206a04b26564cb1"));
    let (spi_i, spi_r) = (hex("34c9e7c188868785"), hex("3ff77d760d2b2199"));
    let shared = hex("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52");
    let shared_new = hex("863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330");
    let prf = Prf::HMAC_SHA1;
    let skeyseed = Native.prf(prf, &[ni.as_slice(), &nr].concat(), &[&shared]).unwrap();
    assert_eq!(to_hex(skeyseed.expose()), "a9a7b222b59f8f48645f28a1db5b5f5d7479cba7");

    let keys = prf_plus(&Native, prf, skeyseed.expose(), &[&ni, &nr, &spi_i, &spi_r], 132).unwrap();
    assert_eq!(
        to_hex(keys.expose()),
        "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002a2a63080e514a062768b76606f9fa5e9\
         92204fc5a670bde3f10d6b027113936a5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd1119\
         8af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4"
    );

    let sk_d = &keys.expose()[..20];
    let child = prf_plus(&Native, prf, sk_d, &[&ni, &nr], 132).unwrap();
    assert_eq!(
        to_hex(&child.expose()[..32]),
        "8059e3ee8810e6c3a91bc8bcd2a7a41151b8d0e6ae239c7b38093ad85ef4c581"
    );
    assert!(to_hex(child.expose()).ends_with("614296d319d41d4b50b3f510b1c0a22f3e664994d234cb4"));
    let child = prf_plus(&Native, prf, sk_d, &[&shared_new, &ni, &nr], 132).unwrap();
    assert_eq!(
        to_hex(&child.expose()[..32]),
        "bb43244c1860ad65ee1e211ffe8bb3661750c8f89cb9f547df7f4fa61d373016"
    );
    let rekeyed = Native.prf(prf, sk_d, &[&shared_new, &ni, &nr]).unwrap();
    assert_eq!(to_hex(rekeyed.expose()), "63e81194946ebd05df7df5ebf5d8750056bf1f1d");
}

#[test]
fn prf_plus_ends_at_255_blocks() {
    let all = prf_plus(&Native, Prf::HMAC_SHA1, b"key", &[b"seed"], 255 * 20).unwrap();
    assert_eq!(all.len(), 255 * 20);
    assert!(prf_plus(&Native, Prf::HMAC_SHA1, b"key", &[b"seed"], 255 * 20 + 1).is_err());
    assert!(prf_plus(&Native, Prf::HMAC_SHA1, b"key", &[b"seed"], 0).unwrap().is_empty());
}

/// FIPS 180-4's "abc".
#[test]
fn digests() {
    let of = |alg| to_hex(&Native.hash(alg, &[b"a", b"", b"bc"]).unwrap());
    assert_eq!(of(HashAlg::SHA1), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(
        of(HashAlg::SHA2_256),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert!(of(HashAlg::SHA2_384).starts_with("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"));
    assert!(of(HashAlg::SHA2_512).starts_with("ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
    assert!(Native.hash(HashAlg::STREEBOG_256, &[]).is_err());
}

/// Opens `iv | ciphertext | MAC`, where the MAC is made here with the PRF, which has vectors of its own.
fn open_with_mac(encr: Encr, key: &[u8], key_bits: u16, iv: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let (mac_key, aad) = ([7; 32], [1, 2, 3, 4, 0, 0, 0, 9]);
    let cipher =
        Native.cipher(spec(encr, key_bits, Integ::HMAC_SHA2_256_128), key, &mac_key).unwrap();
    let mac = Native.prf(Prf::HMAC_SHA2_256, &mac_key, &[&aad, iv, ciphertext]).unwrap();
    let mut packet = [iv, ciphertext, &mac.expose()[..16]].concat();
    cipher.open(&aad, None, &mut packet).expect("the MAC holds");
    packet[iv.len()..packet.len() - 16].to_vec()
}

#[test]
fn ctr_of_rfc_3686() {
    let all = records(include_str!("vectors/rfc-3686-aes-ctr.txt"));
    assert_eq!(all.len(), 9);
    for record in &all {
        let (key, block) = (field(record, "KEY"), field(record, "IV"));
        assert_eq!(block[12..], [0, 0, 0, 1]);
        let keymat = [key.as_slice(), &block[..4]].concat();
        let key_bits = key.len() as u16 * 8;
        let plain = open_with_mac(
            Encr::AES_CTR,
            &keymat,
            key_bits,
            &block[4..12],
            &field(record, "CIPHERTEXT"),
        );
        assert_eq!(plain, field(record, "PLAINTEXT"));

        let counter = u64::from_be_bytes(block[4..12].try_into().unwrap());
        let cipher = Native
            .cipher(spec(Encr::AES_CTR, key_bits, Integ::HMAC_SHA1_96), &keymat, &[0; 20])
            .unwrap();
        let mut packet = [&[0; 8], plain.as_slice(), &[0; 12]].concat();
        cipher.seal(counter, b"", None, &mut packet);
        assert_eq!(packet[8..packet.len() - 12], field(record, "CIPHERTEXT"));
    }
}

/// RFC 3602 4, cases 1 to 4.
#[test]
fn cbc_of_rfc_3602() {
    let counting: Vec<u8> = (0..32).collect();
    let late: Vec<u8> = (0xa0..0xe0).collect();
    let cases: [(&str, &str, &[u8], &str); 4] = [
        (
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            b"Single block msg",
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            &counting,
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
        (
            "6c3ea0477630ce21a2ce334aa746c2cd",
            "c782dc4c098c66cbd9cd27d825682c81",
            b"This is a 48-byte message (exactly 3 AES blocks)",
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684",
        ),
        (
            "56e47a38c5598974bc46903dba290349",
            "8ce82eefbea0da3c44699ed7db51b7d9",
            &late,
            "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
        ),
    ];
    for (key, iv, plain, ciphertext) in cases {
        assert_eq!(open_with_mac(Encr::AES_CBC, &hex(key), 128, &hex(iv), &hex(ciphertext)), plain);
    }
}

/// NIST SP 800-38A F.2: CBC with the longer keys.
#[test]
fn cbc_of_sp_800_38a() {
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    let iv: Vec<u8> = (0..16).collect();
    let cases = [
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        ),
    ];
    for (key, ciphertext) in cases {
        let key = hex(key);
        assert_eq!(
            open_with_mac(Encr::AES_CBC, &key, key.len() as u16 * 8, &iv, &hex(ciphertext)),
            plain
        );
    }
}

/// RFC 7634 appendix A (an ESP packet) and B (an IKE message).
#[test]
fn chacha20_poly1305_of_rfc_7634() {
    let key: Vec<u8> = (0x80..0xa4).collect();
    let counter = 0x1011_1213_1415_1617;
    let cases = [
        (
            "01020304 00000005",
            "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f10111213\
             1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204",
            "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7\
             2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0\
             76aaa8266b7fb0f7b11b369907e1ad43",
        ),
        (
            "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029",
            "0000000c000040010000000a00",
            "610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2",
        ),
    ];
    let cipher = Native.cipher(spec(Encr::CHACHA20_POLY1305, 0, Integ::NONE), &key, &[]).unwrap();
    for (aad, plain, sealed) in cases {
        let (aad, plain, sealed) = (hex(aad), hex(plain), hex(sealed));
        let mut packet = [&[0; 8], plain.as_slice(), &[0; 16]].concat();
        cipher.seal(counter, &aad, None, &mut packet);
        assert_eq!(packet, [&u64::to_be_bytes(counter), sealed.as_slice()].concat());
        cipher.open(&aad, None, &mut packet).unwrap();
        assert_eq!(packet[8..8 + plain.len()], plain);
    }
}

/// RFC 5903 8.1.
#[test]
fn ecp_256_of_rfc_5903() {
    let i = Native.kx_with_private(
        Ke::ECP_256,
        &hex("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433"),
    );
    let r = Native.kx_with_private(
        Ke::ECP_256,
        &hex("C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53"),
    );
    let (i, r) = (i.unwrap(), r.unwrap());
    let gi = hex(
        "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C37725811805271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
    );
    let gr = hex(
        "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF6356FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
    );
    let shared = hex("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE");
    assert_eq!((i.public(), r.public()), (gi.clone(), gr.clone()));
    assert_eq!(i.agree(&gr).unwrap().expose(), shared);
    assert_eq!(r.agree(&gi).unwrap().expose(), shared);
}

/// RFC 7748 5.2: both cases.
#[test]
fn x25519_of_rfc_7748() {
    let cases = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    for (private, public, shared) in cases {
        let kx = Native.kx_with_private(Ke::CURVE25519, &hex(private)).unwrap();
        assert_eq!(to_hex(kx.agree(&hex(public)).unwrap().expose()), shared);
        assert!(kx.agree(&[0; 32]).is_err(), "a point of small order gives zero");
    }
}

/// Known answers computed with Python's integers from the formula of RFC 3526.
#[test]
fn modp_against_another_implementation() {
    let a = hex("203d5733db2d5adbb0a9071353a8d75949f32a3a03afc1c4537710e69292e596");
    let b = hex("6881a407e19e58c3f8565e1578d64ac5d175b6e75184615d81b16799e282b648");
    let cases = [
        (
            Ke::MODP_1536,
            "f2e7a69507bc6c10e5290baf181ab6b7664d828d9d088db2a091ac244a64276b",
            "1c8674f43eb0b0094b757768bea50c79649a4318b984576b437de1bb565a817c",
        ),
        (
            Ke::MODP_2048,
            "5c2226b61be3a98d4b23cf5efc8b7b6aa0a27da862aec5a41bd238d67e5312f7",
            "196596db95282d95bfadff5dacb333a0339ac24e058aa301a8f7c8cf764089b8",
        ),
        (
            Ke::MODP_3072,
            "d3224da52dadd69510e9011c51976f28ccc2f1ffa4255a93e20032395715e43e",
            "86dab199c4a9576afee1672b4a9d16bd5c902583e9c343b9d7fc3e8eb90942f8",
        ),
        (
            Ke::MODP_4096,
            "a1e3f8adf80a95b7713ec206d24a8aa9d2bea778b8cf3987af7b46a535dbae30",
            "14e7c7f6348e565850bed08056db97580108590813e5524515ae4689a88f690c",
        ),
        (
            Ke::MODP_6144,
            "8698c8a58a2587d552c75a3c68c274ec231106db258a29c6b7c75dbbc4215cbc",
            "01783b3bd9cdbb8c56af6582cf55b5a179c0760396eb1dd581bf8b544d237ca0",
        ),
        (
            Ke::MODP_8192,
            "df2772d0c4bc0bc103036fe3599d67051bbc981ba5783af3b84a3430e3cb4e3e",
            "de545a2014f2d7c11b485a8286dab759544dba8bd4613f5a342945017f65fcac",
        ),
    ];
    let sha256 = |bytes: &[u8]| to_hex(&Native.hash(HashAlg::SHA2_256, &[bytes]).unwrap());
    for (method, public, shared) in cases {
        let (alice, bob) = (
            Native.kx_with_private(method, &a).unwrap(),
            Native.kx_with_private(method, &b).unwrap(),
        );
        assert_eq!(sha256(&alice.public()), public, "{method}");
        assert_eq!(sha256(bob.agree(&alice.public()).unwrap().expose()), shared, "{method}");
        assert_eq!(alice.agree(&bob.public()).unwrap(), bob.agree(&alice.public()).unwrap());
    }
}

/// A shared secret whose first byte is zero keeps it (RFC 7296 2.14); the answer is Python's.
#[test]
fn modp_keeps_leading_zeros() {
    let a = hex("203d5733db2d5adbb0a9071353a8d75949f32a3a03afc1c4537710e69292e596");
    let alice = Native.kx_with_private(Ke::MODP_2048, &a).unwrap();
    let bob = Native.kx_with_private(Ke::MODP_2048, &1088u16.to_be_bytes()).unwrap();
    let shared = bob.agree(&alice.public()).unwrap();
    assert_eq!((shared.len(), shared.expose()[0]), (256, 0));
    let digest = Native.hash(HashAlg::SHA2_256, &[shared.expose()]).unwrap();
    assert_eq!(to_hex(&digest), "7f9eaa662762e40bf10e5e50f6c051c6825df1b1921e480d2cbf41c493d246b5");
}

#[test]
fn how_a_message_is_cut_into_parts_does_not_matter() {
    let message: Vec<u8> = (0..50).collect();
    for provider in [&Native as &dyn Provider, &Toy] {
        for prf in [Prf::HMAC_SHA1, Prf::HMAC_SHA2_512, Prf::AES128_CMAC, Prf::AES128_XCBC] {
            let whole = provider.prf(prf, b"key", &[&message]).unwrap();
            assert_eq!(whole.len(), provider.prf_len(prf).unwrap());
            assert_ne!(whole, provider.prf(prf, b"kez", &[&message]).unwrap());
            for at in 0..=message.len() {
                let (a, b) = message.split_at(at);
                assert_eq!(
                    provider.prf(prf, b"key", &[a, b]).unwrap(),
                    whole,
                    "{provider:?} {prf}"
                );
                assert_ne!(provider.prf(prf, b"key", &[a, b, &[0]]).unwrap(), whole);
            }
        }
    }
}
