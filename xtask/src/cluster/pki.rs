//! Keys and certificates of the cluster, by openssl: one authority for everything, valid for a month.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Error, at};
use crate::process;
use crate::progress::Step;

const DAYS: &str = "30";

/// Makes what is shared by the whole cluster, once.
pub(super) fn ensure(dir: &Path, step: &Step) -> Result<(), Error> {
    let pki = dir.join("pki");
    if pki.join("done").exists() {
        return Ok(());
    }
    fs::create_dir_all(&pki).map_err(at("make", &pki))?;
    let log = dir.join("pki.log");
    openssl(&pki, &log, step, &["genrsa", "-out", "sa.key", "2048"])?;
    openssl(&pki, &log, step, &["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
    key(&pki, &log, step, "ca")?;
    let authority = [
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-subj",
        "/CN=cryopod-test",
        "-days",
        DAYS,
        "-out",
        "ca.crt",
    ];
    openssl(&pki, &log, step, &authority)?;
    let server = "IP:127.0.0.1,IP:10.0.2.2,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc";
    certificate(&pki, &log, step, "apiserver", "/CN=kube-apiserver", server)?;
    certificate(&pki, &log, step, "admin", "/O=system:masters/CN=admin", "DNS:admin")?;
    certificate(&pki, &log, step, "front-proxy", "/CN=front-proxy", "DNS:front-proxy")?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        certificate(&pki, &log, step, name, &format!("/CN=system:{name}"), &format!("DNS:{name}"))?;
    }
    fs::write(pki.join("done"), "").map_err(at("write", &pki))
}

/// A kubelet's certificate, for both directions.
pub(super) fn node(dir: &Path, name: &str, address: &str, step: &Step) -> Result<(), Error> {
    let subject = format!("/O=system:nodes/CN=system:node:{name}");
    let names = format!("DNS:{name},IP:{address}");
    certificate(&dir.join("pki"), &dir.join("pki.log"), step, &format!("node-{name}"), &subject, &names)
}

/// A certificate of an ordinary user.
pub(super) fn kubeconfig(server: &str, pki: &Path, name: &str, out: &Path) -> Result<(), Error> {
    let file = |end: &str| pki.join(end).display().to_string();
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority": file("ca.crt") } }],
        "users": [{ "name": name, "user": {
            "client-certificate": file(&format!("{name}.crt")), "client-key": file(&format!("{name}.key")),
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
    });
    fs::write(out, config.to_string()).map_err(at("write", out))
}

fn key(pki: &Path, log: &Path, step: &Step, name: &str) -> Result<(), Error> {
    let out = format!("{name}.key");
    openssl(pki, log, step, &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &out])
}

fn certificate(
    pki: &Path,
    log: &Path,
    step: &Step,
    name: &str,
    subject: &str,
    names: &str,
) -> Result<(), Error> {
    key(pki, log, step, name)?;
    let file = |end: &str| format!("{name}.{end}");
    openssl(pki, log, step, &["req", "-new", "-key", &file("key"), "-subj", subject, "-out", &file("csr")])?;
    let extensions = pki.join(file("ext"));
    let text = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n");
    fs::write(&extensions, text).map_err(at("write", &extensions))?;
    let sign = [
        "x509",
        "-req",
        "-in",
        &file("csr"),
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        DAYS,
        "-extfile",
        &file("ext"),
        "-out",
        &file("crt"),
    ];
    openssl(pki, log, step, &sign)
}

fn openssl(pki: &Path, log: &Path, step: &Step, arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("openssl");
    command.current_dir(pki).args(arguments);
    Ok(process::logged(command, step, "making certificates", log)?)
}
