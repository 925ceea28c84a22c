//! The program itself, in a mount namespace of its own: what a process finds that it has become. Needs root, as every
//! test of mounts and users.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use cryopod_init::options::Options;
use cryopod_init::plan::{Capabilities, Mount, Plan, Rlimit, Seccomp, User, What};
use cryopod_init::report::Report;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags};

mod container;

use container::{Container, ended, field, plan};

/// Runs it to its end.
fn output(plan: &Plan, trees: &[OwnedFd]) -> String {
    let mut container = Container::create(plan, trees);
    assert_eq!(container.answer(), Report::Ready);
    ended(container)
}

#[test]
fn the_process_has_the_identity_and_the_limits_of_the_plan_and_nothing_of_ours() {
    let mut plan =
        plan("echo -n >/dev/stdout && cat /proc/self/status; umask; ulimit -n; pwd; env; ls /proc/self/fd");
    plan.process.user = User { uid: 65534, gid: 4242, additional_gids: vec![7, 9], umask: Some(0o077) };
    plan.process.cwd = "/usr".into();
    let net_bind = 1 << 10;
    plan.process.capabilities = Capabilities {
        bounding: net_bind | 1,
        effective: net_bind,
        permitted: net_bind,
        inheritable: net_bind,
        ambient: net_bind,
    };
    plan.process.rlimits = vec![Rlimit { resource: 7, soft: 123, hard: 456 }];
    plan.process.no_new_privileges = true;
    let found = output(&plan, &[]);
    for (name, wanted) in [
        ("Uid:", "65534\t65534\t65534\t65534"),
        ("Gid:", "4242\t4242\t4242\t4242"),
        ("Groups:", "7 9"),
        ("CapBnd:", "0000000000000401"),
        ("CapEff:", "0000000000000400"),
        ("CapPrm:", "0000000000000400"),
        ("CapInh:", "0000000000000400"),
        ("CapAmb:", "0000000000000400"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "0"),
    ] {
        assert_eq!(field(&found, name), wanted, "{name}");
    }
    let lines: Vec<_> = found.lines().skip_while(|line| !line.starts_with('0')).collect();
    assert_eq!(lines.get(..3), Some(["0077", "123", "/usr"].as_slice()));
    assert!(lines.contains(&"GREETING=two words"), "{lines:?}");
    assert!(lines.contains(&"HOME=/nonexistent") || lines.contains(&"HOME=/"), "{lines:?}");
    // `ls` has its three streams and the directory that it reads.
    assert_eq!(
        lines.iter().skip(3).filter(|line| line.parse::<u32>().is_ok_and(|fd| fd < 100)).count(),
        4,
        "{lines:?}"
    );
}

#[test]
fn nothing_runs_before_it_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("ran");
    let mut container = Container::create(&plan(&format!("touch {}", witness.display())), &[]);
    assert_eq!(container.answer(), Report::Ready);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!witness.exists());
    assert_eq!(container.start(), None);
    assert_eq!(container.finish().0, Some(0));
    assert!(witness.exists());
}

#[test]
fn a_program_that_is_not_there_is_said_before_the_start() {
    let text = tempfile::NamedTempFile::new().unwrap();
    let text = text.path().to_str().unwrap();
    for (name, errno) in [("no-such-program", 2), (text, 13), ("/usr", 13), ("", 2)] {
        let mut plan = plan("");
        plan.process.args = vec![name.to_owned()];
        let mut container = Container::create(&plan, &[]);
        let Report::Failed { message, errno: said } = container.answer() else { panic!("{name} was found") };
        assert!(message.contains(name) && said == Some(errno), "{message}");
        assert_eq!(container.finish().0, Some(127));
    }
}

#[test]
fn mounts_are_made_with_their_options_and_seen_by_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (host, hidden, kept) = (at("host"), at("hidden"), at("kept"));
    for made in [&host, &hidden, &kept] {
        std::fs::create_dir(made).unwrap();
        File::create(made.join("file")).unwrap();
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = |path: &Path| rustix::mount::open_tree(rustix::fs::CWD, path, flags).unwrap();
    let trees = [clone(&host), clone(&host.join("file")), clone(&host.join("file"))];
    std::os::unix::fs::symlink("not/there/yet", at("dangling")).unwrap();
    let mount = |name: &str, what, options: &[&str]| Mount {
        destination: at(name),
        what,
        options: Options::parse(options.iter().copied()).unwrap(),
    };
    let tree = |tree: &OwnedFd, directory| What::Tree { fd: tree.as_raw_fd(), directory };
    let tmpfs = || What::Filesystem { fstype: "tmpfs".to_owned(), source: "tmpfs".to_owned() };
    let root = dir.path().display();
    let script = format!(
        "cd {root}; touch volume/x 2>/dev/null; echo $?; touch scratch/x && ls hidden kept deep/new;
         test -f deep/file && test -f not/there/yet && echo files; stat -fc %s scratch; grep -c {root}/scratch /proc/self/mountinfo;
         grep {root}/scratch /proc/self/mountinfo | grep -c nosuid,noexec; cat /etc/hostname; hostname"
    );
    let mut plan = plan(&script);
    plan.hostname = Some("of-the-plan".to_owned());
    plan.files.mounts = vec![
        mount("volume", tree(&trees[0], true), &["rbind", "ro", "rprivate"]),
        mount("deep/file", tree(&trees[1], false), &["bind"]),
        mount("dangling", tree(&trees[2], false), &["bind"]),
        mount("scratch", tmpfs(), &["nosuid", "noexec", "size=64k"]),
        mount("kept", tmpfs(), &["tmpcopyup"]),
        mount("deep/new", tmpfs(), &[]),
    ];
    plan.files.masked = vec![hidden, "/etc/hostname".into(), "/no/such/path".into()];
    let found = output(&plan, &trees);
    assert_eq!(found, "1\ndeep/new:\n\nhidden:\n\nkept:\nfile\nfiles\n4096\n1\n1\nof-the-plan\n");
    assert!(!at("scratch").join("x").exists(), "a mount of the container is the host's as well");
}

/// A mount of this host, as long as it is held.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path) -> Self {
        std::fs::create_dir(at).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn mounts_are_listed_in_their_order_and_what_they_share_with_the_host_stays_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shared = Mounted::tmpfs(&at("host"));
    rustix::mount::mount_change(&shared.0, MountPropagationFlags::SHARED).unwrap();
    let _below = Mounted::tmpfs(&at("host/below"));
    File::create(at("host/below/file")).unwrap();
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let trees = [rustix::mount::open_tree(rustix::fs::CWD, &shared.0, flags).unwrap()];
    let root = dir.path().display();
    let mut plan = plan(&format!(
        "grep -o ' {root}/[a-z]*/*[a-z]* [a-z]' /proc/self/mountinfo | grep -v host | cut -d' ' -f2;
         mkdir {root}/volume/later && mount -t tmpfs tmpfs {root}/volume/later"
    ));
    let mount = |name: &str, what, options: &[&str]| Mount {
        destination: at(name),
        what,
        options: Options::parse(options.iter().copied()).unwrap(),
    };
    let tmpfs = || What::Filesystem { fstype: "tmpfs".to_owned(), source: "tmpfs".to_owned() };
    let volume = What::Tree { fd: trees[0].as_raw_fd(), directory: true };
    plan.files.mounts = vec![
        mount("first", tmpfs(), &[]),
        mount("volume", volume, &["rbind", "rshared"]),
        mount("last", tmpfs(), &[]),
    ];
    let found = output(&plan, &trees);
    let listed = ["first", "volume", "volume/below", "last"].map(|name| format!("{}\n", at(name).display()));
    assert_eq!(found, listed.concat());
    assert!(at("host/below/file").exists(), "the host has lost a mount");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let later = at("host/later");
    assert!(mounts.contains(&format!(" {} ", later.display())), "a shared mount is not shared any more");
    rustix::mount::unmount(&later, UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_filter_forbids_what_it_says() {
    // Everything but mkdir(2) and mkdirat(2) of this architecture: those answer "no space left".
    let (load_number, jump_equal, answer) = (0x20, 0x15, 0x06);
    let (allow, no_space) = (0x7fff_0000, 0x0005_0000 | 28);
    let numbers = [libc::SYS_mkdirat, if cfg!(target_arch = "x86_64") { 83 } else { libc::SYS_mkdirat }];
    let [first, second] = numbers.map(|number| u32::try_from(number).unwrap());
    let program = vec![
        (load_number, 0, 0, 0),
        (jump_equal, 2, 0, first),
        (jump_equal, 1, 0, second),
        (answer, 0, 0, allow),
        (answer, 0, 0, no_space),
    ];
    for no_new_privileges in [false, true] {
        let mut plan = plan("mkdir /tmp/no 2>&1 | grep -o 'No space'; grep ^Seccomp: /proc/self/status");
        plan.process.no_new_privileges = no_new_privileges;
        plan.process.seccomp = Some(Seccomp { flags: 0, program: program.clone() });
        assert_eq!(output(&plan, &[]), "No space\nSeccomp:\t2\n");
    }
}

#[test]
fn a_terminal_goes_over_the_socket_and_has_its_size() {
    use cryopod_init::plan::Terminal;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = OwnedFd::from(theirs);
    let mut plan =
        plan("test -t 0 && stty size && test $(cut -d' ' -f7 /proc/$$/stat) -ne 0 && echo controlled");
    plan.process.terminal =
        Some(Terminal { socket: socket.as_raw_fd(), width: 77, height: 33, console: false });
    let mut container = Container::create(&plan, &[socket]);
    assert_eq!(container.answer(), Report::Ready);
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut text)];
    rustix::net::recvmsg(&ours, &mut parts, &mut ancillary, rustix::net::RecvFlags::CMSG_CLOEXEC).unwrap();
    let master = ancillary
        .drain()
        .find_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .expect("no descriptor came");
    assert_eq!(container.start(), None);
    let mut shown = Vec::new();
    // A terminal whose last process has gone answers EIO.
    File::from(master).read_to_end(&mut shown).ok();
    assert_eq!(container.finish().0, Some(0));
    assert_eq!(String::from_utf8(shown).unwrap(), "33 77\r\ncontrolled\r\n");
}
