//! `cargo xtask cluster scale`: the agent at its promised size. etcd and an API server run for it beside whatever other cluster
//! there is; the test itself is `agent/tests/cluster.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Error, at, plane};
use crate::cache::Cache;
use crate::lock::Lock;
use crate::repository;

/// Runs it; the figures go to the terminal.
pub(super) fn run(cache: &Cache, programs: &Path) -> Result<(), Error> {
    crate::host::prepare_cluster(cache)?;
    let dir = cache.root().join("cluster-scale");
    fs::create_dir_all(&dir).map_err(at("make", &dir))?;
    let lock = Lock::take(&dir.join(".lock"), "measuring the agent")?;
    // Of a measurement that was ended.
    plane::stop(&dir)?;
    fs::remove_dir_all(dir.join("etcd")).ok();
    let measured = measure(&dir, programs);
    plane::stop(&dir)?;
    drop(lock);
    if measured.is_ok() {
        fs::remove_dir_all(&dir).map_err(at("remove", &dir))?;
    }
    measured
}

fn measure(dir: &Path, programs: &Path) -> Result<(), Error> {
    plane::start_server(dir, programs)?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository::root());
    cargo.args(["test", "--release", "--package", "cryopod-agent", "--test", "cluster"]);
    cargo.args(["--", "--include-ignored", "--nocapture", "--test-threads=1"]);
    cargo.env("CRYOPOD_SCALE_KUBECONFIG", dir.join("admin.conf"));
    let status = cargo.status().map_err(|source| Error::Start { program: "cargo", source })?;
    if status.success() { Ok(()) } else { Err(Error::Scale) }
}
