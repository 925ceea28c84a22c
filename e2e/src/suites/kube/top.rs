//! `kubectl top pod`: what kubelet and metrics-server make of a pod's cgroup is what the cgroup itself says.
//!
//! A backend that runs a pod's processes elsewhere would show 0 here, and autoscalers would see 0 as well.

use std::time::Duration;

use serde_json::json;

use crate::kube::{self, apply, delete, try_kubectl, until_running};
use crate::shell::eventually;
use crate::suite::{Failure, ensure};

/// Memory that the pod holds, in a tmpfs: unlike a page cache nobody can take it back.
const HELD_MIB: u64 = 48;
/// Of a processor, as its limit: a share that the node can give to two such pods.
const LIMIT: &str = "200m";
/// kubelet looks every 10 s, metrics-server every 15 s, and both want to have looked twice.
const SEEN: Duration = Duration::from_secs(240);

/// Of a pod or of its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    cpu_milli: u64,
    memory_mib: u64,
}

impl Usage {
    /// A quarter of a processor's share, since the windows differ, and a tenth of the memory; and what rounding makes of
    /// small numbers.
    fn is_near(self, own: Self) -> bool {
        self.cpu_milli.abs_diff(own.cpu_milli) <= own.cpu_milli / 4 + 10
            && self.memory_mib.abs_diff(own.memory_mib) <= own.memory_mib / 10 + 2
    }
}

pub(super) fn shows(handler: &str) -> Result<(), Failure> {
    let pod = format!("busy-{handler}");
    let script = format!(
        "dd if=/dev/zero of=/dev/shm/held bs=1M count={HELD_MIB} 2>/dev/null; echo held; while :; do :; done"
    );
    apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod },
        "spec": {
            "runtimeClassName": handler,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "app", "image": kube::IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
                "resources": { "requests": { "cpu": "10m" }, "limits": { "cpu": LIMIT, "memory": "128Mi" } },
            }],
        },
    }))?;
    until_running(&pod)?;
    eventually(&format!("{pod} holds its memory"), kube::PATIENCE, || {
        Ok((try_kubectl(&["logs", &pod])?.stdout.trim() == "held").then_some(()))
    })?;
    let mut last = String::new();
    let seen = eventually(&format!("kubectl top pod {pod} is near its cgroup"), SEEN, || {
        match top(&pod)? {
            Ok(before) if before.memory_mib >= HELD_MIB => {}
            early => {
                last = format!("kubectl top says {early:?}");
                return Ok(None);
            }
        }
        let own = own(&pod)?;
        let shown = top(&pod)?;
        last = format!("kubectl top says {shown:?}, the cgroup {own:?}");
        Ok(shown.ok().filter(|shown| shown.is_near(own)).map(|shown| (shown, own)))
    });
    let (shown, own) = seen.map_err(|error| format!("{error}; {last}"))?;
    println!("{handler}: kubectl top {shown:?}, cgroup {own:?}");
    ensure(own.memory_mib >= HELD_MIB && own.cpu_milli > 20, || {
        format!("the pod itself does not do what the test needs: {own:?}")
    })?;
    delete(&["pod", &pod])
}

/// What kubectl says instead, as long as metrics-server has seen too little of the pod.
fn top(pod: &str) -> Result<Result<Usage, String>, Failure> {
    let done = try_kubectl(&["top", "pod", pod, "--no-headers"])?;
    if done.code != 0 {
        return Ok(Err(done.stderr.trim().to_owned()));
    }
    parse(&done.stdout).map(Ok).ok_or_else(|| format!("kubectl top pod: {:?}", done.stdout))
}

/// `NAME 200m 50Mi`.
fn parse(line: &str) -> Option<Usage> {
    let mut words = line.split_whitespace().skip(1);
    let cpu_milli = words.next()?.strip_suffix('m')?.parse().ok()?;
    let memory_mib = words.next()?.strip_suffix("Mi")?.parse().ok()?;
    words.next().is_none().then_some(Usage { cpu_milli, memory_mib })
}

/// What the container's cgroup says within half a minute: the one right below the pod's. Memory is counted as kubelet does,
/// without files that the kernel would drop first.
fn own(pod: &str) -> Result<Usage, Failure> {
    let script = format!(
        "id=$(crictl ps -q --label io.kubernetes.pod.name={pod})
         pid=$(crictl inspect -o go-template --template '{{{{.info.pid}}}}' $id)
         c=/sys/fs/cgroup$(sed 's/^0:://' /proc/$pid/cgroup)
         while case $(basename $(dirname $c)) in pod*|kubepods*-pod*) false;; esac; do c=$(dirname $c); test $c != /; done
         used() {{ sed -n 's/^usage_usec //p' $c/cpu.stat; }}
         a=$(used); from=$(date +%s%N); sleep 30; b=$(used); to=$(date +%s%N)
         echo $(( (b - a) * 1000000 / (to - from) )) $(cat $c/memory.current) $(sed -n 's/^inactive_file //p' $c/memory.stat)"
    );
    let said = kube::in_node(&kube::node_name()?, &script)?;
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [cpu_milli, memory, inactive_file] = numbers[..] else {
        return Err(format!("the cgroup of {pod}: {said:?}"));
    };
    Ok(Usage { cpu_milli, memory_mib: memory.saturating_sub(inactive_file) >> 20 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_prints_is_read() {
        assert_eq!(parse("busy  201m   49Mi \n"), Some(Usage { cpu_milli: 201, memory_mib: 49 }));
        assert_eq!(parse("busy 201m"), None);
        assert_eq!(parse("busy <unknown> 1Mi"), None);
    }

    #[test]
    fn zero_is_not_near_to_a_busy_pod() {
        let own = Usage { cpu_milli: 200, memory_mib: 50 };
        assert!(Usage { cpu_milli: 180, memory_mib: 49 }.is_near(own));
        assert!(!Usage { cpu_milli: 0, memory_mib: 49 }.is_near(own));
        assert!(!Usage { cpu_milli: 200, memory_mib: 0 }.is_near(own));
    }
}
