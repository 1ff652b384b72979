//! The IANA registries of IKEv2, each number with its name.
//!
//! Each registry is an open set: an unknown number is kept as it came and is shown as a number, so
//! that nothing a newer peer sends is lost on the way through. Numbers: IANA "Internet Key Exchange
//! Version 2 (IKEv2) Parameters" and "IP Encapsulating Security Payload" registries.

use std::fmt;

/// Makes a newtype over a number with named constants; `Display` gives the name, or the number.
macro_rules! registry {
    ($(#[$meta:meta])* $name:ident($repr:ty) { $($konst:ident = $num:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        #[allow(missing_docs, non_upper_case_globals)]
        impl $name {
            $(pub const $konst: Self = Self($num);)*

            /// Every number that has a name here, in ascending order of the registry.
            pub const KNOWN: &'static [Self] = &[$(Self($num),)*];

            /// The registered name, or `None` for a number that is not known here.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($num => Some($text),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

registry! {
    /// IKEv2 exchange types (RFC 7296 3.1, RFC 5723, RFC 9242, RFC 9370, RFC 9838).
    ExchangeType(u8) {
        IKE_SA_INIT = 34 "IKE_SA_INIT",
        IKE_AUTH = 35 "IKE_AUTH",
        CREATE_CHILD_SA = 36 "CREATE_CHILD_SA",
        INFORMATIONAL = 37 "INFORMATIONAL",
        IKE_SESSION_RESUME = 38 "IKE_SESSION_RESUME",
        GSA_AUTH = 39 "GSA_AUTH",
        GSA_REGISTRATION = 40 "GSA_REGISTRATION",
        GSA_REKEY = 41 "GSA_REKEY",
        GSA_INBAND_REKEY = 42 "GSA_INBAND_REKEY",
        IKE_INTERMEDIATE = 43 "IKE_INTERMEDIATE",
        IKE_FOLLOWUP_KE = 44 "IKE_FOLLOWUP_KE",
    }
}

registry! {
    /// Payload types (RFC 7296 3.2); the short names are those of the RFC's diagrams.
    PayloadType(u8) {
        NONE = 0 "none",
        SA = 33 "SA",
        KE = 34 "KE",
        ID_I = 35 "IDi",
        ID_R = 36 "IDr",
        CERT = 37 "CERT",
        CERTREQ = 38 "CERTREQ",
        AUTH = 39 "AUTH",
        NONCE = 40 "Nonce",
        NOTIFY = 41 "N",
        DELETE = 42 "D",
        VENDOR_ID = 43 "V",
        TS_I = 44 "TSi",
        TS_R = 45 "TSr",
        SK = 46 "SK",
        CP = 47 "CP",
        EAP = 48 "EAP",
        GSPM = 49 "GSPM",
        IDG = 50 "IDg",
        GSA = 51 "GSA",
        KD = 52 "KD",
        SKF = 53 "SKF",
        PS = 54 "PS",
    }
}

registry! {
    /// Security protocol identifiers (RFC 7296 3.3.1).
    ProtocolId(u8) {
        NONE = 0 "none",
        IKE = 1 "IKE",
        AH = 2 "AH",
        ESP = 3 "ESP",
        FC_ESP_HEADER = 4 "FC_ESP_HEADER",
        FC_CT_AUTHENTICATION = 5 "FC_CT_AUTHENTICATION",
        GIKE_UPDATE = 6 "GIKE_UPDATE",
    }
}

registry! {
    /// Transform types (RFC 7296 3.3.2, RFC 9370, RFC 9827, RFC 9838).
    TransformType(u8) {
        ENCR = 1 "ENCR",
        PRF = 2 "PRF",
        INTEG = 3 "INTEG",
        KE = 4 "KE",
        SN = 5 "SN",
        ADDKE1 = 6 "ADDKE1",
        ADDKE2 = 7 "ADDKE2",
        ADDKE3 = 8 "ADDKE3",
        ADDKE4 = 9 "ADDKE4",
        ADDKE5 = 10 "ADDKE5",
        ADDKE6 = 11 "ADDKE6",
        ADDKE7 = 12 "ADDKE7",
        KWA = 13 "KWA",
        GCAUTH = 14 "GCAUTH",
    }
}

registry! {
    /// Encryption algorithms (transform type 1). Key lengths stand in the key length attribute.
    Encr(u16) {
        DES_IV64 = 1 "DES_IV64",
        DES = 2 "DES",
        TRIPLE_DES = 3 "3DES",
        RC5 = 4 "RC5",
        IDEA = 5 "IDEA",
        CAST = 6 "CAST",
        BLOWFISH = 7 "BLOWFISH",
        TRIPLE_IDEA = 8 "3IDEA",
        DES_IV32 = 9 "DES_IV32",
        NULL = 11 "NULL",
        AES_CBC = 12 "AES_CBC",
        AES_CTR = 13 "AES_CTR",
        AES_CCM_8 = 14 "AES_CCM_8",
        AES_CCM_12 = 15 "AES_CCM_12",
        AES_CCM_16 = 16 "AES_CCM_16",
        AES_GCM_8 = 18 "AES_GCM_8",
        AES_GCM_12 = 19 "AES_GCM_12",
        AES_GCM_16 = 20 "AES_GCM_16",
        NULL_AES_GMAC = 21 "NULL_AES_GMAC",
        CAMELLIA_CBC = 23 "CAMELLIA_CBC",
        CAMELLIA_CTR = 24 "CAMELLIA_CTR",
        CAMELLIA_CCM_8 = 25 "CAMELLIA_CCM_8",
        CAMELLIA_CCM_12 = 26 "CAMELLIA_CCM_12",
        CAMELLIA_CCM_16 = 27 "CAMELLIA_CCM_16",
        CHACHA20_POLY1305 = 28 "CHACHA20_POLY1305",
        AES_CCM_8_IIV = 29 "AES_CCM_8_IIV",
        AES_GCM_16_IIV = 30 "AES_GCM_16_IIV",
        CHACHA20_POLY1305_IIV = 31 "CHACHA20_POLY1305_IIV",
    }
}

registry! {
    /// Pseudorandom functions (transform type 2).
    Prf(u16) {
        HMAC_MD5 = 1 "HMAC_MD5",
        HMAC_SHA1 = 2 "HMAC_SHA1",
        HMAC_TIGER = 3 "HMAC_TIGER",
        AES128_XCBC = 4 "AES128_XCBC",
        HMAC_SHA2_256 = 5 "HMAC_SHA2_256",
        HMAC_SHA2_384 = 6 "HMAC_SHA2_384",
        HMAC_SHA2_512 = 7 "HMAC_SHA2_512",
        AES128_CMAC = 8 "AES128_CMAC",
    }
}

registry! {
    /// Integrity algorithms (transform type 3).
    Integ(u16) {
        NONE = 0 "NONE",
        HMAC_MD5_96 = 1 "HMAC_MD5_96",
        HMAC_SHA1_96 = 2 "HMAC_SHA1_96",
        DES_MAC = 3 "DES_MAC",
        KPDK_MD5 = 4 "KPDK_MD5",
        AES_XCBC_96 = 5 "AES_XCBC_96",
        HMAC_MD5_128 = 6 "HMAC_MD5_128",
        HMAC_SHA1_160 = 7 "HMAC_SHA1_160",
        AES_CMAC_96 = 8 "AES_CMAC_96",
        AES_128_GMAC = 9 "AES_128_GMAC",
        AES_192_GMAC = 10 "AES_192_GMAC",
        AES_256_GMAC = 11 "AES_256_GMAC",
        HMAC_SHA2_256_128 = 12 "HMAC_SHA2_256_128",
        HMAC_SHA2_384_192 = 13 "HMAC_SHA2_384_192",
        HMAC_SHA2_512_256 = 14 "HMAC_SHA2_512_256",
    }
}

registry! {
    /// Key exchange methods (transform type 4; "Diffie-Hellman groups" before RFC 9370).
    Ke(u16) {
        NONE = 0 "NONE",
        MODP_768 = 1 "MODP_768",
        MODP_1024 = 2 "MODP_1024",
        MODP_1536 = 5 "MODP_1536",
        MODP_2048 = 14 "MODP_2048",
        MODP_3072 = 15 "MODP_3072",
        MODP_4096 = 16 "MODP_4096",
        MODP_6144 = 17 "MODP_6144",
        MODP_8192 = 18 "MODP_8192",
        ECP_256 = 19 "ECP_256",
        ECP_384 = 20 "ECP_384",
        ECP_521 = 21 "ECP_521",
        MODP_1024_160 = 22 "MODP_1024_160",
        MODP_2048_224 = 23 "MODP_2048_224",
        MODP_2048_256 = 24 "MODP_2048_256",
        ECP_192 = 25 "ECP_192",
        ECP_224 = 26 "ECP_224",
        BRAINPOOL_224 = 27 "BRAINPOOL_224",
        BRAINPOOL_256 = 28 "BRAINPOOL_256",
        BRAINPOOL_384 = 29 "BRAINPOOL_384",
        BRAINPOOL_512 = 30 "BRAINPOOL_512",
        CURVE25519 = 31 "CURVE25519",
        CURVE448 = 32 "CURVE448",
        GOST3410_2012_256 = 33 "GOST3410_2012_256",
        GOST3410_2012_512 = 34 "GOST3410_2012_512",
        ML_KEM_512 = 35 "ML_KEM_512",
        ML_KEM_768 = 36 "ML_KEM_768",
        ML_KEM_1024 = 37 "ML_KEM_1024",
    }
}

registry! {
    /// Sequence number properties (transform type 5; "Extended Sequence Numbers" before RFC 9827).
    Sn(u16) {
        SEQ_32 = 0 "NO_ESN",
        ESN = 1 "ESN",
    }
}

registry! {
    /// Authentication methods (RFC 7296 3.8, RFC 4754, RFC 7427, RFC 7619).
    AuthMethod(u8) {
        RSA = 1 "RSA",
        PSK = 2 "PSK",
        DSS = 3 "DSS",
        ECDSA_256 = 9 "ECDSA_256",
        ECDSA_384 = 10 "ECDSA_384",
        ECDSA_521 = 11 "ECDSA_521",
        GSPAM = 12 "GSPAM",
        NULL = 13 "NULL",
        DIGITAL_SIGNATURE = 14 "DIGITAL_SIGNATURE",
    }
}

registry! {
    /// Hash algorithms of SIGNATURE_HASH_ALGORITHMS (RFC 7427 7, RFC 8420).
    HashAlg(u16) {
        SHA1 = 1 "SHA1",
        SHA2_256 = 2 "SHA2_256",
        SHA2_384 = 3 "SHA2_384",
        SHA2_512 = 4 "SHA2_512",
        IDENTITY = 5 "IDENTITY",
        STREEBOG_256 = 6 "STREEBOG_256",
        STREEBOG_512 = 7 "STREEBOG_512",
    }
}

registry! {
    /// Identification types (RFC 7296 3.5).
    IdType(u8) {
        IPV4_ADDR = 1 "ID_IPV4_ADDR",
        FQDN = 2 "ID_FQDN",
        RFC822_ADDR = 3 "ID_RFC822_ADDR",
        IPV6_ADDR = 5 "ID_IPV6_ADDR",
        DER_ASN1_DN = 9 "ID_DER_ASN1_DN",
        DER_ASN1_GN = 10 "ID_DER_ASN1_GN",
        KEY_ID = 11 "ID_KEY_ID",
        FC_NAME = 12 "ID_FC_NAME",
        NULL = 13 "ID_NULL",
    }
}

registry! {
    /// Certificate encodings (RFC 7296 3.6).
    CertEncoding(u8) {
        PKCS7_X509 = 1 "PKCS7_X509",
        PGP = 2 "PGP",
        DNS_KEY = 3 "DNS_KEY",
        X509_SIGNATURE = 4 "X509_SIGNATURE",
        KERBEROS = 6 "KERBEROS",
        CRL = 7 "CRL",
        ARL = 8 "ARL",
        SPKI = 9 "SPKI",
        X509_ATTRIBUTE = 10 "X509_ATTRIBUTE",
        RAW_RSA = 11 "RAW_RSA",
        HASH_AND_URL = 12 "HASH_AND_URL",
        HASH_AND_URL_BUNDLE = 13 "HASH_AND_URL_BUNDLE",
        OCSP = 14 "OCSP",
        RAW_PUBLIC_KEY = 15 "RAW_PUBLIC_KEY",
    }
}

registry! {
    /// Traffic selector types (RFC 7296 3.13.1).
    TsType(u8) {
        IPV4_ADDR_RANGE = 7 "TS_IPV4_ADDR_RANGE",
        IPV6_ADDR_RANGE = 8 "TS_IPV6_ADDR_RANGE",
        FC_ADDR_RANGE = 9 "TS_FC_ADDR_RANGE",
        SECLABEL = 10 "TS_SECLABEL",
    }
}

registry! {
    /// Notify message types; below 16384 errors, from there on status (RFC 7296 3.10.1).
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1 "UNSUPPORTED_CRITICAL_PAYLOAD",
        INVALID_IKE_SPI = 4 "INVALID_IKE_SPI",
        INVALID_MAJOR_VERSION = 5 "INVALID_MAJOR_VERSION",
        INVALID_SYNTAX = 7 "INVALID_SYNTAX",
        INVALID_MESSAGE_ID = 9 "INVALID_MESSAGE_ID",
        INVALID_SPI = 11 "INVALID_SPI",
        NO_PROPOSAL_CHOSEN = 14 "NO_PROPOSAL_CHOSEN",
        INVALID_KE_PAYLOAD = 17 "INVALID_KE_PAYLOAD",
        AUTHENTICATION_FAILED = 24 "AUTHENTICATION_FAILED",
        SINGLE_PAIR_REQUIRED = 34 "SINGLE_PAIR_REQUIRED",
        NO_ADDITIONAL_SAS = 35 "NO_ADDITIONAL_SAS",
        INTERNAL_ADDRESS_FAILURE = 36 "INTERNAL_ADDRESS_FAILURE",
        FAILED_CP_REQUIRED = 37 "FAILED_CP_REQUIRED",
        TS_UNACCEPTABLE = 38 "TS_UNACCEPTABLE",
        INVALID_SELECTORS = 39 "INVALID_SELECTORS",
        UNACCEPTABLE_ADDRESSES = 40 "UNACCEPTABLE_ADDRESSES",
        UNEXPECTED_NAT_DETECTED = 41 "UNEXPECTED_NAT_DETECTED",
        USE_ASSIGNED_HOA = 42 "USE_ASSIGNED_HOA",
        TEMPORARY_FAILURE = 43 "TEMPORARY_FAILURE",
        CHILD_SA_NOT_FOUND = 44 "CHILD_SA_NOT_FOUND",
        INVALID_GROUP_ID = 45 "INVALID_GROUP_ID",
        AUTHORIZATION_FAILED = 46 "AUTHORIZATION_FAILED",
        STATE_NOT_FOUND = 47 "STATE_NOT_FOUND",
        TS_MAX_QUEUE = 48 "TS_MAX_QUEUE",
        REGISTRATION_FAILED = 49 "REGISTRATION_FAILED",
        INITIAL_CONTACT = 16384 "INITIAL_CONTACT",
        SET_WINDOW_SIZE = 16385 "SET_WINDOW_SIZE",
        ADDITIONAL_TS_POSSIBLE = 16386 "ADDITIONAL_TS_POSSIBLE",
        IPCOMP_SUPPORTED = 16387 "IPCOMP_SUPPORTED",
        NAT_DETECTION_SOURCE_IP = 16388 "NAT_DETECTION_SOURCE_IP",
        NAT_DETECTION_DESTINATION_IP = 16389 "NAT_DETECTION_DESTINATION_IP",
        COOKIE = 16390 "COOKIE",
        USE_TRANSPORT_MODE = 16391 "USE_TRANSPORT_MODE",
        HTTP_CERT_LOOKUP_SUPPORTED = 16392 "HTTP_CERT_LOOKUP_SUPPORTED",
        REKEY_SA = 16393 "REKEY_SA",
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394 "ESP_TFC_PADDING_NOT_SUPPORTED",
        NON_FIRST_FRAGMENTS_ALSO = 16395 "NON_FIRST_FRAGMENTS_ALSO",
        MOBIKE_SUPPORTED = 16396 "MOBIKE_SUPPORTED",
        ADDITIONAL_IP4_ADDRESS = 16397 "ADDITIONAL_IP4_ADDRESS",
        ADDITIONAL_IP6_ADDRESS = 16398 "ADDITIONAL_IP6_ADDRESS",
        NO_ADDITIONAL_ADDRESSES = 16399 "NO_ADDITIONAL_ADDRESSES",
        UPDATE_SA_ADDRESSES = 16400 "UPDATE_SA_ADDRESSES",
        COOKIE2 = 16401 "COOKIE2",
        NO_NATS_ALLOWED = 16402 "NO_NATS_ALLOWED",
        AUTH_LIFETIME = 16403 "AUTH_LIFETIME",
        MULTIPLE_AUTH_SUPPORTED = 16404 "MULTIPLE_AUTH_SUPPORTED",
        ANOTHER_AUTH_FOLLOWS = 16405 "ANOTHER_AUTH_FOLLOWS",
        REDIRECT_SUPPORTED = 16406 "REDIRECT_SUPPORTED",
        REDIRECT = 16407 "REDIRECT",
        REDIRECTED_FROM = 16408 "REDIRECTED_FROM",
        TICKET_LT_OPAQUE = 16409 "TICKET_LT_OPAQUE",
        TICKET_REQUEST = 16410 "TICKET_REQUEST",
        TICKET_ACK = 16411 "TICKET_ACK",
        TICKET_NACK = 16412 "TICKET_NACK",
        TICKET_OPAQUE = 16413 "TICKET_OPAQUE",
        LINK_ID = 16414 "LINK_ID",
        USE_WESP_MODE = 16415 "USE_WESP_MODE",
        ROHC_SUPPORTED = 16416 "ROHC_SUPPORTED",
        EAP_ONLY_AUTHENTICATION = 16417 "EAP_ONLY_AUTHENTICATION",
        CHILDLESS_IKEV2_SUPPORTED = 16418 "CHILDLESS_IKEV2_SUPPORTED",
        QUICK_CRASH_DETECTION = 16419 "QUICK_CRASH_DETECTION",
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420 "IKEV2_MESSAGE_ID_SYNC_SUPPORTED",
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421 "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED",
        IKEV2_MESSAGE_ID_SYNC = 16422 "IKEV2_MESSAGE_ID_SYNC",
        IPSEC_REPLAY_COUNTER_SYNC = 16423 "IPSEC_REPLAY_COUNTER_SYNC",
        SECURE_PASSWORD_METHODS = 16424 "SECURE_PASSWORD_METHODS",
        PSK_PERSIST = 16425 "PSK_PERSIST",
        PSK_CONFIRM = 16426 "PSK_CONFIRM",
        ERX_SUPPORTED = 16427 "ERX_SUPPORTED",
        IFOM_CAPABILITY = 16428 "IFOM_CAPABILITY",
        SENDER_REQUEST_ID = 16429 "SENDER_REQUEST_ID",
        IKEV2_FRAGMENTATION_SUPPORTED = 16430 "IKEV2_FRAGMENTATION_SUPPORTED",
        SIGNATURE_HASH_ALGORITHMS = 16431 "SIGNATURE_HASH_ALGORITHMS",
        CLONE_IKE_SA_SUPPORTED = 16432 "CLONE_IKE_SA_SUPPORTED",
        CLONE_IKE_SA = 16433 "CLONE_IKE_SA",
        PUZZLE = 16434 "PUZZLE",
        USE_PPK = 16435 "USE_PPK",
        PPK_IDENTITY = 16436 "PPK_IDENTITY",
        NO_PPK_AUTH = 16437 "NO_PPK_AUTH",
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438 "INTERMEDIATE_EXCHANGE_SUPPORTED",
        IP4_ALLOWED = 16439 "IP4_ALLOWED",
        IP6_ALLOWED = 16440 "IP6_ALLOWED",
        ADDITIONAL_KEY_EXCHANGE = 16441 "ADDITIONAL_KEY_EXCHANGE",
        USE_AGGFRAG = 16442 "USE_AGGFRAG",
        SUPPORTED_AUTH_METHODS = 16443 "SUPPORTED_AUTH_METHODS",
        SA_RESOURCE_INFO = 16444 "SA_RESOURCE_INFO",
        USE_PPK_INT = 16445 "USE_PPK_INT",
        PPK_IDENTITY_KEY = 16446 "PPK_IDENTITY_KEY",
    }
}

impl NotifyType {
    /// Whether this is an error type: below 16384 (RFC 7296 3.10.1).
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl Encr {
    /// Whether the algorithm carries its own integrity check (RFC 5282), so that no INTEG transform goes with it.
    pub fn is_aead(self) -> bool {
        matches!(
            self,
            Self::AES_CCM_8
                | Self::AES_CCM_12
                | Self::AES_CCM_16
                | Self::AES_GCM_8
                | Self::AES_GCM_12
                | Self::AES_GCM_16
                | Self::NULL_AES_GMAC
                | Self::CAMELLIA_CCM_8
                | Self::CAMELLIA_CCM_12
                | Self::CAMELLIA_CCM_16
                | Self::CHACHA20_POLY1305
                | Self::AES_CCM_8_IIV
                | Self::AES_GCM_16_IIV
                | Self::CHACHA20_POLY1305_IIV
        )
    }
}
