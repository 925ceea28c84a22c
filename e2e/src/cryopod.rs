//! The command `cryopod`, as a person or a script calls it: JSON out, exit codes and error kinds checked.

use std::time::Duration;

use serde_json::Value;

use crate::shell::{self, Finished, eventually};
use crate::suite::{Failure, ensure};

/// Settling ships datasets; an emulated and busy node takes its time.
const SETTLING: Duration = Duration::from_secs(180);

/// Runs `cryopod -o json ARGS`, whatever comes of it.
pub fn run(args: &[&str]) -> Result<Finished, Failure> {
    let mut argv = vec!["cryopod", "-o", "json"];
    argv.extend(args);
    shell::exec(&argv)
}

/// Like [`run`], but it has to succeed; returns its JSON.
pub fn ok(args: &[&str]) -> Result<Value, Failure> {
    let done = run(args)?;
    ensure(done.code == 0, || {
        format!("`cryopod {}` ended with {}: {}", args.join(" "), done.code, done.stderr.trim())
    })?;
    if done.stdout.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&done.stdout)
        .map_err(|e| format!("`cryopod {}` wrote no JSON: {e}: {}", args.join(" "), done.stdout.trim()))
}

/// It has to be refused with that exit code (docs/reference/exit-codes.md); returns the error's message and advice.
pub fn refused(args: &[&str], code: i32) -> Result<String, Failure> {
    let done = run(args)?;
    ensure(done.code == code, || {
        format!(
            "`cryopod {}` ended with {}, not {code}: {}{}",
            args.join(" "),
            done.code,
            done.stdout.trim(),
            done.stderr.trim()
        )
    })?;
    Ok(done.stderr)
}

/// A checkpoint in the store; deleted when dropped.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its id.
    pub id: String,
    /// Options that lead to its store: none for the configured one.
    pub store: Vec<String>,
}

impl Checkpoint {
    /// Captures a pod or container.
    pub fn of(target: &str) -> Result<Self, Failure> {
        Self::with(target, &[])
    }

    /// Captures with further options of `cryopod checkpoint`.
    pub fn with(target: &str, options: &[&str]) -> Result<Self, Failure> {
        let mut args = vec!["checkpoint", target];
        args.extend(options);
        let answer = ok(&args)?;
        let id = answer["id"].as_str().ok_or_else(|| format!("no id in {answer}"))?;
        Ok(Self::named(id))
    }

    /// One that is known to be there.
    pub fn named(id: &str) -> Self {
        Self { id: id.to_owned(), store: Vec::new() }
    }

    /// Options before the verb that lead to its store.
    pub fn call(&self, args: &[&str]) -> Result<Value, Failure> {
        let mut all: Vec<&str> = self.store.iter().map(String::as_str).collect();
        all.extend(args);
        ok(&all)
    }

    /// `checkpoints show`: `checkpoint` (as in the list) and `manifest`.
    pub fn show(&self) -> Result<Value, Failure> {
        self.call(&["checkpoints", "show", &self.id])
    }

    /// Its manifest.
    pub fn manifest(&self) -> Result<Value, Failure> {
        let shown = self.show()?;
        let manifest = &shown["manifest"];
        ensure(manifest.is_object(), || format!("no manifest in {shown}"))?;
        Ok(manifest.clone())
    }

    /// Whether it is independent of its source.
    pub fn is_settled(&self) -> Result<bool, Failure> {
        let shown = self.show()?;
        shown["checkpoint"]["settled"].as_bool().ok_or_else(|| format!("no settled in {shown}"))
    }

    /// Waits until it is.
    pub fn settle(&self) -> Result<(), Failure> {
        eventually(&format!("checkpoint {} is settled", self.id), SETTLING, || {
            Ok(self.is_settled()?.then_some(()))
        })
    }

    /// Every stored byte has its hash.
    pub fn verify(&self) -> Result<(), Failure> {
        self.call(&["checkpoints", "verify", &self.id]).map(drop)
    }

    /// Who lives on its disks.
    pub fn sharers(&self) -> Result<Vec<String>, Failure> {
        let shown = self.show()?;
        let list = shown["checkpoint"]["sharers"].as_array().cloned();
        let list = list.ok_or_else(|| format!("no sharers in {shown}"))?;
        Ok(list.iter().filter_map(|sharer| sharer.as_str().map(str::to_owned)).collect())
    }

    /// Deletes it; returns the state that `delete` reports, `gone` or `deferred`.
    pub fn delete(self) -> Result<String, Failure> {
        let done = self.call(&["checkpoints", "delete", &self.id]);
        std::mem::forget(self);
        Ok(done?["deleted"][0]["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Where its content directory is in the store.
    pub fn content(&self) -> Result<std::path::PathBuf, Failure> {
        let store = if self.store.is_empty() { "store" } else { "directory" };
        let path = format!("/var/lib/cryopod/{store}/checkpoints/{}/memory", self.id);
        let path = std::path::PathBuf::from(path);
        ensure(path.join("manifest.json").exists(), || format!("{} has no manifest", path.display()))?;
        Ok(path)
    }

    /// Makes its content writable, which only a damaged disk or an attacker would.
    pub fn unlock(&self) -> Result<(), Failure> {
        let content = self.content()?;
        let set = "d=$(df --output=source,fstype \"$0\" | sed -n 2p); \
                   case $d in *zfs) zfs set readonly=off ${d% *};; esac";
        shell::exec_ok(&["sh", "-ec", set, &content.display().to_string()]).map(drop)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if let Err(e) = self.call(&["checkpoints", "delete", &self.id]) {
            eprintln!("clean-up: {e}");
        }
    }
}

/// Ids of all committed checkpoints.
pub fn checkpoints() -> Result<Vec<String>, Failure> {
    let list = ok(&["checkpoints", "list"])?;
    let list = list.as_array().ok_or("`cryopod checkpoints list` is no list")?;
    Ok(list.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect())
}
