use super::*;

fn any(type_url: &str, message: &impl Message) -> Any {
    let mut any = Any::new();
    any.type_url = type_url.to_owned();
    any.value = message.write_to_bytes().unwrap();
    any
}

#[test]
fn runcs_options_choose_program_root_and_cgroup_driver() {
    let runc = RuncOptions {
        binary_name: "/opt/bin/crun".to_owned(),
        root: "/run/custom".to_owned(),
        systemd_cgroup: true,
        ..RuncOptions::default()
    };
    let sources = Sources { directory: Some("/nonexistent".into()), ..Sources::default() };
    let config = Config::load(&sources).unwrap();
    let asked = Asked { config, read: Read { sources, runc }, ..Asked::default() };
    let options = asked.oci_options("k8s.io", asked.fixed().unwrap());
    assert_eq!((options.name.as_str(), options.program.as_path()), ("crun", Path::new("/opt/bin/crun")));
    assert_eq!(options.root, Path::new("/run/custom/k8s.io"));
    assert!(options.systemd_cgroup);
}

#[test]
fn a_runtime_that_nobody_configured_is_called_all_the_same() {
    let runc = RuncOptions { binary_name: "/opt/youki".to_owned(), ..RuncOptions::default() };
    let options = apply(&Config::default(), &runc, "moby", "youki");
    assert_eq!((options.name.as_str(), options.program.as_path()), ("youki", Path::new("/opt/youki")));
}

#[test]
fn our_own_options_carry_a_configuration() {
    let ours = RuntimeOptions {
        config_body: b"[runtime]\ndefault = \"runc\"\n".to_vec(),
        ..RuntimeOptions::default()
    };
    let read = read_options(Some(&any("runtimeoptions.v1.Options", &ours))).unwrap();
    assert_eq!(read.sources.body.as_deref(), Some("[runtime]\ndefault = \"runc\"\n"));
    let prefixed = read_options(Some(&any("type.googleapis.com/runtimeoptions.v1.Options", &ours))).unwrap();
    assert!(prefixed.sources.body.is_some());
}

#[test]
fn options_that_name_a_runtime_leave_nothing_to_rules() {
    let fixed = |runc: RuncOptions, fixed: bool| {
        let read = Read { runc, ..Read::default() };
        let asked = Asked { config: Config { fixed, ..Config::default() }, read, ..Asked::default() };
        asked.fixed().map(str::to_owned)
    };
    let named = || RuncOptions { binary_name: "/opt/youki".to_owned(), ..RuncOptions::default() };
    assert_eq!(fixed(named(), false).as_deref(), Some("youki"));
    assert_eq!(fixed(named(), true).as_deref(), Some("youki"));
    assert_eq!(fixed(RuncOptions::default(), true).as_deref(), Some("crun"));
    let cri = RuncOptions { systemd_cgroup: true, ..RuncOptions::default() };
    assert_eq!(fixed(cri, false), None);
}

#[test]
fn the_same_options_and_runtime_give_the_same_backend() {
    let ours = RuntimeOptions {
        config_path: "/dev/null".to_owned(),
        config_body: b"[[routing]]\npod = \"a\"\nbackend = \"runc\"\n".to_vec(),
        ..RuntimeOptions::default()
    };
    let (backends, options) = (Configured::default(), any("runtimeoptions.v1.Options", &ours));
    let backend = |runtime| {
        let asked = backends.read(Some(&options)).unwrap();
        assert_eq!((asked.fixed(), asked.config.routing.len()), (None, 1));
        backends.backend("k8s.io", &asked, runtime).backend
    };
    let (first, other, again) = (backend("runc"), backend("crun"), backend("runc"));
    assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
    assert_eq!((first.name(), other.name()), ("oci/runc", "oci/crun"));
}

#[test]
fn unknown_and_broken_options_are_refused_with_their_type() {
    let mut strange = Any::new();
    strange.type_url = "kata.Options".to_owned();
    assert!(read_options(Some(&strange)).unwrap_err().to_string().contains("kata.Options"));
    strange.type_url = "containerd.runc.v1.Options".to_owned();
    strange.value = vec![0xff];
    assert!(read_options(Some(&strange)).is_err());
    assert!(read_options(None).unwrap().sources.body.is_none());
}
