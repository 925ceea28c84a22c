//! Containers on LXC against crun, runc and liblxc's own `lxc-start`: one bundle of busybox without a network of its own, sides
//! in turn. Start is everything from the call to the end of `/bin/true` and its removal; exec is `/bin/true` in a running one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::memory::pss_of;
use super::{Figure, Sizes, mean, median};
use crate::shell::{exec_ok, ok, sh};
use crate::suite::Failure;

const WORK: &str = "/run/cryopod-e2e/bench-lxc";
const OURS: &str = "cryopod-lxc";
/// Containers at one time for the memory of what stays beside them.
const CONTAINERS: usize = 5;
/// What is promised for it, bytes.
const PROMISED: f64 = 3.0 * 1024.0 * 1024.0;

/// `lxc_start_*`, `lxc_exec_*`, `lxc_pss`.
pub fn figures(sizes: &Sizes) -> Result<Vec<Figure>, Failure> {
    let bundle = Bundle::make()?;
    let mut figures = Vec::new();
    // Twice the runs: one start is short.
    let runs = sizes.runs * 2;
    for (key, stock, target) in [
        ("lxc_start_crun", "crun", 1.3),
        ("lxc_start_runc", "runc", 0.3),
        ("lxc_start_lxc", "lxc-start", 1.0),
    ] {
        let (ours, theirs) = alternate(runs, || bundle.start(OURS), || bundle.start(stock))?;
        let what = format!("run /bin/true to its end: cryopod-lxc against {stock}");
        figures.push(Figure {
            key,
            what,
            unit: "ms",
            ours,
            stock: theirs,
            target: Some(target),
            middle: median,
        });
    }
    for (key, stock, target) in
        [("lxc_exec_crun", "crun", 1.3), ("lxc_exec_runc", "runc", 0.3), ("lxc_exec_lxc", "lxc-attach", 1.0)]
    {
        let (ours, theirs) = bundle.execs(stock, runs)?;
        let what = format!("run /bin/true in a running container: cryopod-lxc exec against {stock}");
        figures.push(Figure {
            key,
            what,
            unit: "ms",
            ours,
            stock: theirs,
            target: Some(target),
            middle: median,
        });
    }
    let ours = bundle.memory()?;
    figures.push(Figure {
        key: "lxc_pss",
        what: format!(
            "PSS of what stays beside a container, {CONTAINERS} running, against the promised 3 MiB"
        ),
        unit: "bytes",
        stock: vec![PROMISED; ours.len()],
        ours,
        target: Some(1.0),
        middle: mean,
    });
    Ok(figures)
}

type Timed<'a> = &'a dyn Fn() -> Result<(), Failure>;

fn alternate(
    runs: usize,
    ours: impl Fn() -> Result<(), Failure>,
    stock: impl Fn() -> Result<(), Failure>,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let timed = |work: Timed<'_>| -> Result<f64, Failure> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    // Once without a watch: programs and libraries come from disk.
    ours()?;
    stock()?;
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..runs {
        times.0.push(timed(&ours)?);
        times.1.push(timed(&stock)?);
    }
    Ok(times)
}

/// A bundle, and the same as a container of `lxc-start`; removed when dropped.
struct Bundle {
    dir: PathBuf,
}

impl Bundle {
    fn make() -> Result<Self, Failure> {
        let dir = PathBuf::from(WORK);
        sh(&format!("rm -rf {WORK}"))?;
        ok(&format!(
            "mkdir -p {WORK}/rootfs/bin {WORK}/rootfs/proc {WORK}/rootfs/sys {WORK}/rootfs/dev {WORK}/lxc/plain \
             && cp /bin/busybox {WORK}/rootfs/bin/ && for n in sh true sleep; do ln -s busybox {WORK}/rootfs/bin/$n; done \
             && cd {WORK} && runc spec"
        ))?;
        let bundle = Self { dir };
        bundle.spec(&["/bin/true"])?;
        let config = format!(
            "lxc.rootfs.path = dir:{WORK}/rootfs\nlxc.execute.cmd = /bin/true\nlxc.init.cmd = /bin/true\n\
             lxc.namespace.clone = mnt pid ipc uts cgroup\nlxc.apparmor.profile = unchanged\nlxc.log.level = ERROR\n\
             lxc.mount.auto = proc:mixed sys:ro\nlxc.tty.max = 0\nlxc.pty.max = 0\nlxc.console.path = none\n"
        );
        write(&bundle.dir.join("lxc/plain/config"), &config)?;
        Ok(bundle)
    }

    fn spec(&self, args: &[&str]) -> Result<(), Failure> {
        let path = self.dir.join("config.json");
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut spec: Value =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        spec["root"]["readonly"] = json!(false);
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        write(&path, &spec.to_string())
    }

    fn start(&self, program: &str) -> Result<(), Failure> {
        if program == "lxc-start" {
            let path = format!("{WORK}/lxc");
            return exec_ok(&["lxc-start", "-F", "-P", &path, "-n", "plain"]).map(drop);
        }
        ok(&format!("cd {WORK} && {program} run bench </dev/null")).map(drop)
    }

    fn execs(&self, stock: &str, runs: usize) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        self.spec(&["/bin/sleep", "1000"])?;
        let run = |program: &str, id: &str| {
            ok(&format!("cd {WORK} && {program} run -d {id} </dev/null >/dev/null 2>&1"))
        };
        run(OURS, "ours")?;
        let theirs: Vec<&str> = if stock == "lxc-attach" {
            vec!["lxc-attach", "-n", "ours", "--", "/bin/true"]
        } else {
            run(stock, "theirs")?;
            vec![stock, "exec", "theirs", "/bin/true"]
        };
        let times = alternate(
            runs,
            || exec_ok(&[OURS, "exec", "ours", "/bin/true"]).map(drop),
            || exec_ok(&theirs).map(drop),
        );
        ok(&format!("{OURS} delete --force ours"))?;
        if stock != "lxc-attach" {
            ok(&format!("{stock} delete --force theirs"))?;
        }
        self.spec(&["/bin/true"])?;
        times
    }

    fn memory(&self) -> Result<Vec<f64>, Failure> {
        self.spec(&["/bin/sleep", "1000"])?;
        for n in 0..CONTAINERS {
            ok(&format!("cd {WORK} && {OURS} run -d pss-{n} </dev/null >/dev/null 2>&1"))?;
        }
        let found = ok("pgrep -f '^[^ ]*cryopod-lxc-monitor pss-'")?;
        let pss: Result<Vec<f64>, Failure> =
            found.lines().map(|pid| pss_of(&Path::new("/proc").join(pid.trim()))).collect();
        for n in 0..CONTAINERS {
            ok(&format!("{OURS} delete --force pss-{n}"))?;
        }
        let pss = pss?;
        if pss.len() == CONTAINERS {
            Ok(pss)
        } else {
            Err(format!("{} monitors for {CONTAINERS} containers", pss.len()))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("clean-up: {}: {error}", self.dir.display());
        }
    }
}
