//! The keywords of strongSwan's proposal syntax, for the algorithms that have a number here.

use std::sync::LazyLock;

use crate::registry::{Encr, Integ, Ke, Prf, Sn};

/// What a keyword stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// With the key length attribute, where the algorithm has one.
    Encr(Encr, Option<u16>),
    /// With the PRF that follows from it in IKE.
    Integ(Integ, Prf),
    Prf(Prf),
    Ke(Ke),
    Sn(Sn),
}

/// A keyword and its meaning. Of several keywords for one algorithm the first is the one that is written.
pub(super) type Keyword = (String, Algorithm);

/// Every keyword, `ke1_` to `ke7_` aside.
pub(super) fn all() -> &'static [Keyword] {
    static ALL: LazyLock<Vec<Keyword>> = LazyLock::new(|| {
        let fixed = FIXED.iter().map(|(name, algorithm)| ((*name).to_owned(), *algorithm));
        sized().into_iter().chain(fixed).collect()
    });
    &ALL
}

/// The PRF that goes with an integrity algorithm in IKE where none is named.
pub(super) fn implied_prf(integ: Integ) -> Option<Prf> {
    FIXED.iter().find_map(|(_, algorithm)| match algorithm {
        Algorithm::Integ(i, prf) if *i == integ => Some(*prf),
        _ => None,
    })
}

/// The keyword nearest to what was written, if a slip or two make the difference.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    if written.len() > MAX_KEYWORD {
        return None;
    }
    let limit = (written.len() / 3).clamp(1, 3);
    known
        .filter(|k| k.len().abs_diff(written.len()) <= limit)
        .map(|k| (distance(written.as_bytes(), k.as_bytes()), k))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k.to_owned())
}

/// Longer than any keyword by far.
const MAX_KEYWORD: usize = 40;

/// AES and Camellia: every mode in every key length.
fn sized() -> Vec<Keyword> {
    let mut out = Vec::new();
    for bits in [128, 192, 256] {
        for (suffix, encr) in AES {
            out.push((format!("aes{bits}{suffix}"), Algorithm::Encr(*encr, Some(bits))));
        }
    }
    for bits in [128, 192, 256] {
        for (suffix, encr) in CAMELLIA {
            out.push((format!("camellia{bits}{suffix}"), Algorithm::Encr(*encr, Some(bits))));
        }
    }
    out
}

/// Modes of AES; the number after GCM and CCM is the length of the ICV in bytes, or in bits.
const AES: &[(&str, Encr)] = &[
    ("", Encr::AES_CBC),
    ("ctr", Encr::AES_CTR),
    ("gcm16", Encr::AES_GCM_16),
    ("gcm128", Encr::AES_GCM_16),
    ("gcm", Encr::AES_GCM_16),
    ("gcm12", Encr::AES_GCM_12),
    ("gcm96", Encr::AES_GCM_12),
    ("gcm8", Encr::AES_GCM_8),
    ("gcm64", Encr::AES_GCM_8),
    ("ccm16", Encr::AES_CCM_16),
    ("ccm128", Encr::AES_CCM_16),
    ("ccm", Encr::AES_CCM_16),
    ("ccm12", Encr::AES_CCM_12),
    ("ccm96", Encr::AES_CCM_12),
    ("ccm8", Encr::AES_CCM_8),
    ("ccm64", Encr::AES_CCM_8),
    ("gmac", Encr::NULL_AES_GMAC),
];

const CAMELLIA: &[(&str, Encr)] = &[
    ("", Encr::CAMELLIA_CBC),
    ("ctr", Encr::CAMELLIA_CTR),
    ("ccm16", Encr::CAMELLIA_CCM_16),
    ("ccm128", Encr::CAMELLIA_CCM_16),
    ("ccm12", Encr::CAMELLIA_CCM_12),
    ("ccm96", Encr::CAMELLIA_CCM_12),
    ("ccm8", Encr::CAMELLIA_CCM_8),
    ("ccm64", Encr::CAMELLIA_CCM_8),
];

const FIXED: &[(&str, Algorithm)] = &[
    ("aes", Algorithm::Encr(Encr::AES_CBC, Some(128))),
    ("camellia", Algorithm::Encr(Encr::CAMELLIA_CBC, Some(128))),
    ("chacha20poly1305", Algorithm::Encr(Encr::CHACHA20_POLY1305, None)),
    ("3des", Algorithm::Encr(Encr::TRIPLE_DES, None)),
    ("des", Algorithm::Encr(Encr::DES, None)),
    ("blowfish128", Algorithm::Encr(Encr::BLOWFISH, Some(128))),
    ("blowfish192", Algorithm::Encr(Encr::BLOWFISH, Some(192))),
    ("blowfish256", Algorithm::Encr(Encr::BLOWFISH, Some(256))),
    ("blowfish", Algorithm::Encr(Encr::BLOWFISH, Some(128))),
    ("cast128", Algorithm::Encr(Encr::CAST, Some(128))),
    ("null", Algorithm::Encr(Encr::NULL, None)),
    ("sha1", Algorithm::Integ(Integ::HMAC_SHA1_96, Prf::HMAC_SHA1)),
    ("sha", Algorithm::Integ(Integ::HMAC_SHA1_96, Prf::HMAC_SHA1)),
    ("sha1_160", Algorithm::Integ(Integ::HMAC_SHA1_160, Prf::HMAC_SHA1)),
    ("sha256", Algorithm::Integ(Integ::HMAC_SHA2_256_128, Prf::HMAC_SHA2_256)),
    ("sha2_256", Algorithm::Integ(Integ::HMAC_SHA2_256_128, Prf::HMAC_SHA2_256)),
    ("sha384", Algorithm::Integ(Integ::HMAC_SHA2_384_192, Prf::HMAC_SHA2_384)),
    ("sha2_384", Algorithm::Integ(Integ::HMAC_SHA2_384_192, Prf::HMAC_SHA2_384)),
    ("sha512", Algorithm::Integ(Integ::HMAC_SHA2_512_256, Prf::HMAC_SHA2_512)),
    ("sha2_512", Algorithm::Integ(Integ::HMAC_SHA2_512_256, Prf::HMAC_SHA2_512)),
    ("md5", Algorithm::Integ(Integ::HMAC_MD5_96, Prf::HMAC_MD5)),
    ("md5_128", Algorithm::Integ(Integ::HMAC_MD5_128, Prf::HMAC_MD5)),
    ("aesxcbc", Algorithm::Integ(Integ::AES_XCBC_96, Prf::AES128_XCBC)),
    ("aescmac", Algorithm::Integ(Integ::AES_CMAC_96, Prf::AES128_CMAC)),
    ("prfsha1", Algorithm::Prf(Prf::HMAC_SHA1)),
    ("prfsha256", Algorithm::Prf(Prf::HMAC_SHA2_256)),
    ("prfsha384", Algorithm::Prf(Prf::HMAC_SHA2_384)),
    ("prfsha512", Algorithm::Prf(Prf::HMAC_SHA2_512)),
    ("prfmd5", Algorithm::Prf(Prf::HMAC_MD5)),
    ("prfaesxcbc", Algorithm::Prf(Prf::AES128_XCBC)),
    ("prfaescmac", Algorithm::Prf(Prf::AES128_CMAC)),
    ("none", Algorithm::Ke(Ke::NONE)),
    ("modpnone", Algorithm::Ke(Ke::NONE)),
    ("modp768", Algorithm::Ke(Ke::MODP_768)),
    ("modp1024", Algorithm::Ke(Ke::MODP_1024)),
    ("modp1536", Algorithm::Ke(Ke::MODP_1536)),
    ("modp2048", Algorithm::Ke(Ke::MODP_2048)),
    ("modp3072", Algorithm::Ke(Ke::MODP_3072)),
    ("modp4096", Algorithm::Ke(Ke::MODP_4096)),
    ("modp6144", Algorithm::Ke(Ke::MODP_6144)),
    ("modp8192", Algorithm::Ke(Ke::MODP_8192)),
    ("modp1024s160", Algorithm::Ke(Ke::MODP_1024_160)),
    ("modp2048s224", Algorithm::Ke(Ke::MODP_2048_224)),
    ("modp2048s256", Algorithm::Ke(Ke::MODP_2048_256)),
    ("ecp192", Algorithm::Ke(Ke::ECP_192)),
    ("ecp224", Algorithm::Ke(Ke::ECP_224)),
    ("ecp256", Algorithm::Ke(Ke::ECP_256)),
    ("ecp384", Algorithm::Ke(Ke::ECP_384)),
    ("ecp521", Algorithm::Ke(Ke::ECP_521)),
    ("ecp224bp", Algorithm::Ke(Ke::BRAINPOOL_224)),
    ("ecp256bp", Algorithm::Ke(Ke::BRAINPOOL_256)),
    ("ecp384bp", Algorithm::Ke(Ke::BRAINPOOL_384)),
    ("ecp512bp", Algorithm::Ke(Ke::BRAINPOOL_512)),
    ("curve25519", Algorithm::Ke(Ke::CURVE25519)),
    ("x25519", Algorithm::Ke(Ke::CURVE25519)),
    ("curve448", Algorithm::Ke(Ke::CURVE448)),
    ("x448", Algorithm::Ke(Ke::CURVE448)),
    ("mlkem512", Algorithm::Ke(Ke::ML_KEM_512)),
    ("mlkem768", Algorithm::Ke(Ke::ML_KEM_768)),
    ("mlkem1024", Algorithm::Ke(Ke::ML_KEM_1024)),
    ("noesn", Algorithm::Sn(Sn::SEQ_32)),
    ("esn", Algorithm::Sn(Sn::ESN)),
];

/// Letters to change, leave out, put in, or swap with their neighbour.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (above[j - 1] + same).min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
