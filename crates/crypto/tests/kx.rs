//! Key exchange from seeds, with both providers.

use crypto::kx::{KxError, answer_len, public_len};
use crypto::native::Native;
use crypto::provider::Provider;
use crypto::toy::Toy;
use wire::registry::Ke;

const METHODS: [Ke; 10] = [
    Ke::MODP_1536,
    Ke::MODP_2048,
    Ke::MODP_3072,
    Ke::MODP_4096,
    Ke::MODP_6144,
    Ke::MODP_8192,
    Ke::ECP_256,
    Ke::ECP_384,
    Ke::ECP_521,
    Ke::CURVE25519,
];

const KEMS: [Ke; 3] = [Ke::ML_KEM_512, Ke::ML_KEM_768, Ke::ML_KEM_1024];

fn providers() -> [&'static dyn Provider; 2] {
    [&Native, &Toy]
}

#[test]
fn both_sides_agree_and_seeds_decide_alone() {
    for provider in providers() {
        for method in METHODS {
            assert!(provider.has_kx(method));
            let [a, again, b] = [1, 1, 2].map(|seed| provider.kx(method, &[seed; 64]).unwrap());
            assert_eq!(a.public(), again.public(), "{method}");
            assert_ne!(a.public(), b.public(), "{method}");
            assert_eq!(Some(a.public().len()), public_len(method));
            provider.check_public(method, &a.public()).unwrap();
            let (ab, ba) = (a.agree(&b.public()).unwrap(), b.agree(&a.public()).unwrap());
            assert_eq!(ab, ba, "{method}");
            assert_ne!(ab, a.agree(&a.public()).unwrap(), "{method}");
        }
    }
}

/// RFC 7296 2.14, RFC 5903 7, RFC 8031 3.
#[test]
fn shared_secrets_have_fixed_lengths() {
    for method in METHODS {
        let shared = Native
            .kx(method, &[1; 64])
            .unwrap()
            .agree(&Native.kx(method, &[2; 64]).unwrap().public())
            .unwrap();
        let public = public_len(method).unwrap();
        let expected = match method {
            Ke::ECP_256 | Ke::ECP_384 | Ke::ECP_521 => public / 2,
            _ => public,
        };
        assert_eq!(shared.len(), expected, "{method}");
    }
}

#[test]
fn one_seed_gives_unrelated_keys_for_different_methods() {
    let (small, large) =
        (Native.kx(Ke::ECP_256, &[9; 64]).unwrap(), Native.kx(Ke::ECP_384, &[9; 64]).unwrap());
    assert_ne!(small.public()[..32], large.public()[..32]);
}

#[test]
fn lengths_are_checked() {
    for provider in providers() {
        for method in METHODS {
            let kx = provider.kx(method, &[1; 64]).unwrap();
            let expected = public_len(method).unwrap();
            for got in [0, 1, expected - 1, expected + 1, 4096] {
                let public = vec![5; got];
                let error = KxError::Length { expected, got };
                assert_eq!(kx.agree(&public).unwrap_err(), error, "{method}");
                assert_eq!(provider.check_public(method, &public).unwrap_err(), error, "{method}");
            }
        }
    }
}

/// RFC 6989 2.1: 0, 1, p - 1, p and above are refused; 2 and p - 2 are not.
#[test]
fn modp_public_values_outside_the_group_are_refused() {
    for method in &METHODS[..6] {
        let (len, kx) = (public_len(*method).unwrap(), Native.kx(*method, &[1; 64]).unwrap());
        let small = |value: u8| {
            let mut public = vec![0; len];
            public[len - 1] = value;
            public
        };
        for value in [small(0), small(1), vec![0xff; len]] {
            assert_eq!(kx.agree(&value).unwrap_err(), KxError::Invalid);
            assert_eq!(Native.check_public(*method, &value).unwrap_err(), KxError::Invalid);
        }
        assert!(kx.agree(&small(2)).is_ok());
    }
    // All primes of RFC 3526 end in 64 one bits, so p - 1 and p + 1 need the prime itself: that of 1536 bits from RFC 3526 2.
    let prime = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
                 EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
                 EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
                 83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF";
    let prime: Vec<u8> = (0..prime.len() / 2)
        .map(|n| u8::from_str_radix(&prime[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let below = |by: u8| {
        let mut value = prime.clone();
        *value.last_mut().unwrap() -= by;
        value
    };
    let check = |value: &[u8]| Native.check_public(Ke::MODP_1536, value);
    assert_eq!(check(&prime), Err(KxError::Invalid));
    assert_eq!(check(&below(1)), Err(KxError::Invalid));
    assert_eq!(check(&below(2)), Ok(()));
}

/// RFC 6989 2.3: a point that is not on the curve, and coordinates not below the prime.
#[test]
fn points_off_the_curve_are_refused() {
    for method in [Ke::ECP_256, Ke::ECP_384, Ke::ECP_521] {
        let kx = Native.kx(method, &[1; 64]).unwrap();
        let mut public = Native.kx(method, &[2; 64]).unwrap().public();
        *public.last_mut().unwrap() ^= 1;
        for bad in [public.clone(), vec![0; public.len()], vec![0xff; public.len()]] {
            assert_eq!(kx.agree(&bad).unwrap_err(), KxError::Invalid);
            assert_eq!(Native.check_public(method, &bad).unwrap_err(), KxError::Invalid);
        }
    }
}

#[test]
fn unknown_methods_are_refused() {
    for provider in providers() {
        for method in [Ke::NONE, Ke::MODP_1024, Ke::MODP_2048_256, Ke::CURVE448, Ke(9999)] {
            assert!(!provider.has_kx(method));
            assert!(provider.kx(method, &[1; 64]).is_err());
            assert!(provider.check_public(method, &[2; 32]).is_err());
        }
    }
}

/// Of a KEM each side has its own part, and the responder's is made for one initiator.
#[test]
fn kems_agree_from_seeds() {
    for provider in providers() {
        for method in KEMS {
            assert!(provider.has_kx(method));
            let [a, again, other] = [1, 1, 2].map(|seed| provider.kx(method, &[seed; 64]).unwrap());
            assert_eq!(a.public(), again.public(), "{method}");
            assert_ne!(a.public(), other.public(), "{method}");
            assert_eq!(Some(a.public().len()), public_len(method));
            let b = provider.kx_answer(method, &[3; 64], &a.public()).unwrap();
            assert_eq!(Some(b.public().len()), answer_len(method));
            provider.check_public(method, &a.public()).unwrap();
            provider.check_answer(method, &b.public()).unwrap();
            let (ab, ba) = (a.agree(&b.public()).unwrap(), b.agree(&a.public()).unwrap());
            assert_eq!((ab.len(), &ab), (32, &ba), "{method}");
            // Meant for somebody else: another secret, and no error (implicit rejection).
            assert_ne!(other.agree(&b.public()).unwrap(), ab, "{method}");
        }
    }
    let [a, other] = [1, 2].map(|seed| Native.kx(Ke::ML_KEM_768, &[seed; 64]).unwrap());
    let b = Native.kx_answer(Ke::ML_KEM_768, &[3; 64], &a.public()).unwrap();
    assert_eq!(b.agree(&other.public()).unwrap_err(), KxError::Invalid);
}

#[test]
fn lengths_of_kems_are_checked() {
    for provider in providers() {
        for method in KEMS {
            let a = provider.kx(method, &[1; 64]).unwrap();
            for (expected, answer) in [(public_len(method), false), (answer_len(method), true)] {
                let expected = expected.unwrap();
                for got in [0, 1, 32, expected - 1, expected + 1, 4096] {
                    let value = vec![5; got];
                    let error = KxError::Length { expected, got };
                    if answer {
                        assert_eq!(a.agree(&value).unwrap_err(), error, "{method}");
                        assert_eq!(provider.check_answer(method, &value).unwrap_err(), error);
                    } else {
                        let made = provider.kx_answer(method, &[1; 64], &value).map(|_| ());
                        assert_eq!(made.unwrap_err(), error, "{method}");
                        assert_eq!(provider.check_public(method, &value).unwrap_err(), error);
                    }
                }
            }
        }
    }
}
