//! The certificates of all cells, made once a run with openssl; and libreswan's databases of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::enter::{OWN, VERB};
use crate::matrix::{Auth, Peer};
use crate::net::run;

/// At least 20 bytes, as the manifest wants it.
pub const PSK: &str = "interop-0123456789abcdef";
/// Warren's subject.
pub const OURS: &str = "CN=ours.example";
/// The peer's.
pub const THEIRS: &str = "CN=theirs.example";

/// The folder of one kind of certificates.
pub fn folder(pki: &Path, auth: Auth) -> PathBuf {
    pki.join(crate::matrix::lower(&auth))
}

/// Issuers below the root, whose certificates have to be sent along.
pub fn intermediates(auth: Auth) -> &'static [&'static str] {
    if auth == Auth::Chain { &["one", "two"] } else { &[] }
}

/// Makes all kinds of certificates in `pki`, and the databases for those of `peers` that need one.
pub fn make(pki: &Path, peers: &[Peer], roots: &Path) -> Result<(), String> {
    // Those of an earlier run are not added to.
    let _ = fs::remove_dir_all(pki);
    for auth in [Auth::Rsa, Auth::Ecdsa, Auth::Chain] {
        let dir = folder(pki, auth);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let made = issue(&dir, auth);
        made.map_err(|error| format!("certificates in {}: {error}", dir.display()))?;
        for peer in peers.iter().filter(|peer| !peer.is_strongswan()) {
            nss(&dir, auth, &roots.join(peer.folder()), &dir.join(peer.folder()))?;
        }
    }
    Ok(())
}

fn issue(dir: &Path, auth: Auth) -> Result<(), String> {
    // A long name makes a large certificate.
    let long =
        if auth == Auth::Chain { "/O=An organisation with a name that takes its time" } else { "" };
    let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
    request(dir, "ca", auth, &format!("{long}/CN=interop {auth:?} root"))?;
    sign(dir, "ca", None, ca)?;
    let mut issuer = "ca";
    for name in intermediates(auth) {
        request(dir, name, auth, &format!("{long}/CN=interop intermediate {name}"))?;
        sign(dir, name, Some(issuer), &format!("{ca}authorityKeyIdentifier=keyid\n"))?;
        issuer = name;
    }
    for (name, subject) in [("ours", OURS), ("theirs", THEIRS)] {
        request(dir, name, auth, &format!("/{subject}"))?;
        let extensions = format!(
            "subjectAltName=DNS:{name}.example\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n"
        );
        sign(dir, name, Some(issuer), &extensions)?;
    }
    Ok(())
}

fn file(dir: &Path, name: &str, kind: &str) -> String {
    dir.join(format!("{name}.{kind}")).display().to_string()
}

fn request(dir: &Path, name: &str, auth: Auth, subject: &str) -> Result<(), String> {
    let key: &[&str] = match auth {
        Auth::Ecdsa => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        Auth::Chain => &["-newkey", "rsa:4096"],
        Auth::Rsa | Auth::Psk => &["-newkey", "rsa:3072"],
    };
    let (key_file, csr) = (file(dir, name, "key"), file(dir, name, "csr"));
    let mut args =
        vec!["req", "-new", "-nodes", "-subj", subject, "-keyout", &key_file, "-out", &csr];
    args.extend(key);
    run("openssl", &args).map(|_| ())
}

fn sign(dir: &Path, name: &str, issuer: Option<&str>, extensions: &str) -> Result<(), String> {
    let list = file(dir, name, "ext");
    fs::write(&list, extensions).map_err(|error| format!("{list}: {error}"))?;
    let (csr, out) = (file(dir, name, "csr"), file(dir, name, "pem"));
    let own = file(dir, name, "key");
    let mut args =
        vec!["x509", "-req", "-in", &csr, "-out", &out, "-days", "30", "-extfile", &list];
    let (ca, key);
    match issuer {
        None => args.extend(["-signkey", &own]),
        Some(issuer) => {
            (ca, key) = (file(dir, issuer, "pem"), file(dir, issuer, "key"));
            args.extend(["-CA", &ca, "-CAkey", &key]);
        }
    }
    run("openssl", &args).map(|_| ())
}

/// libreswan keeps keys and certificates in a database of NSS, whose tools are the peer's own.
fn nss(dir: &Path, auth: Auth, root: &Path, home: &Path) -> Result<(), String> {
    for own in OWN {
        fs::create_dir_all(home.join(own))
            .map_err(|error| format!("{}: {error}", home.display()))?;
    }
    let database = home.join("var/lib/ipsec/nss");
    fs::create_dir_all(&database).map_err(|error| format!("{}: {error}", database.display()))?;
    let bundle = home.join("etc/theirs.p12").display().to_string();
    let (cert, key) = (file(dir, "theirs", "pem"), file(dir, "theirs", "key"));
    run(
        "openssl",
        &[
            "pkcs12", "-export", "-in", &cert, "-inkey", &key, "-name", "theirs", "-out", &bundle,
            "-passout", "pass:x",
        ],
    )?;
    let tool = |program: &str, args: &[&str]| {
        let myself = std::env::current_exe().map_err(|error| error.to_string())?;
        let (root, home) = (root.display().to_string(), home.display().to_string());
        let mut all = vec![VERB, &root, &home, program];
        all.extend(args);
        run(myself, &all)
    };
    let db = "sql:/var/lib/ipsec/nss";
    tool("/usr/bin/certutil", &["-N", "-d", db, "--empty-password"])?;
    for name in ["ca"].iter().chain(intermediates(auth)) {
        let copy = home.join(format!("etc/{name}.pem"));
        fs::copy(file(dir, name, "pem"), &copy)
            .map_err(|error| format!("{}: {error}", copy.display()))?;
        let trust = if *name == "ca" { "CT,," } else { ",," };
        let path = format!("/etc/{name}.pem");
        tool("/usr/bin/certutil", &["-A", "-a", "-n", name, "-t", trust, "-i", &path, "-d", db])?;
    }
    tool("/usr/bin/pk12util", &["-i", "/etc/theirs.p12", "-d", db, "-W", "x"])?;
    Ok(())
}
