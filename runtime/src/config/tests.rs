use std::path::Path;

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("conf.d")).expect("conf.d");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("file");
    }
    dir
}

fn load(files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = directory(files);
    Config::load(&Sources { directory: Some(dir.path().to_owned()), ..Sources::default() })
}

#[test]
fn without_any_file_crun_is_the_default_and_the_store_is_found_out() {
    let config = Config::load(&Sources { directory: Some("/nonexistent".into()), ..Sources::default() })
        .expect("defaults");
    assert_eq!(config.runtime.default, "crun");
    assert!(config.runtime("runc").is_some());
    assert_eq!(config.store.kind, StoreKind::Auto);
    assert_eq!(config.volumes.other, VolumePolicy::Refuse);
}

#[test]
fn later_drop_ins_win_key_by_key() {
    let config = load(&[
        ("config.toml", "[checkpoint]\ntcp = \"close\"\nghost_limit = \"1MiB\"\n"),
        ("conf.d/20-b.toml", "[checkpoint]\nghost_limit = \"3MiB\"\n"),
        ("conf.d/10-a.toml", "[checkpoint]\nghost_limit = \"2MiB\"\n"),
        ("conf.d/30-c.txt", "not toml at all"),
    ])
    .expect("valid");
    assert_eq!(config.checkpoint.ghost_limit, Bytes(3 << 20));
    assert_eq!(config.checkpoint.tcp, TcpPolicy::Close);
}

#[test]
fn a_misspelt_key_is_an_error_with_file_line_and_column() {
    let error = load(&[("conf.d/10-a.toml", "# comment\n[store]\n  knid = \"zfs\"\n")]).expect_err("typo");
    let text = error.to_string();
    assert!(
        text.contains("conf.d/10-a.toml:3:3: unknown key 'store.knid', did you mean 'store.kind'?"),
        "{text}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error_with_its_place() {
    let error = load(&[("config.toml", "[store]\nkind = \"zsf\"\n")]).expect_err("no such store");
    assert!(error.to_string().contains("config.toml:2:8: "), "{error}");
    let error = load(&[("config.toml", "[checkpoint]\ntimeout = \"soon\"\n")]).expect_err("no duration");
    assert!(error.to_string().contains("config.toml:2:11: 'soon' is not a duration"), "{error}");
}

#[test]
fn broken_toml_names_its_place() {
    let error = load(&[("config.toml", "[store\n")]).expect_err("broken");
    assert!(error.to_string().contains("config.toml:1:"), "{error}");
}

#[test]
fn a_default_runtime_that_does_not_exist_is_refused() {
    let error = load(&[("config.toml", "[runtime]\ndefault = \"kata\"\n")]).expect_err("no such runtime");
    assert!(error.to_string().contains("configured: crun, lxc, runc"), "{error}");
}

#[test]
fn any_runtime_can_be_configured() {
    let config = load(&[(
        "config.toml",
        "[runtime]\ndefault = \"youki\"\n[runtime.youki]\npath = \"/opt/youki\"\nsystemd_cgroup = true\n",
    )])
    .expect("valid");
    let youki = config.runtime("youki").expect("configured");
    assert_eq!(youki.path.as_deref(), Some(Path::new("/opt/youki")));
    assert!(youki.systemd_cgroup);
}

#[test]
fn the_body_of_runtime_options_lies_over_the_files() {
    let dir = directory(&[("config.toml", "[runtime]\ndefault = \"runc\"\n")]);
    let sources = Sources {
        directory: Some(dir.path().to_owned()),
        body: Some("[log]\nlevel = \"debug\"\n".into()),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("valid");
    assert_eq!((config.runtime.default.as_str(), config.log.level), ("runc", Level::Debug));
}

#[test]
fn a_file_named_by_runtime_options_must_exist() {
    let sources = Sources { file: Some("/nonexistent/file.toml".into()), ..Sources::default() };
    assert!(matches!(Config::load(&sources), Err(ConfigError::Read { .. })));
}

#[test]
fn the_dump_reads_back_as_the_same_and_has_only_known_keys() {
    let config = load(&[(
        "config.toml",
        "[store.zfs]\nroot = \"rpool/cryopod\"\n[runtime.crun]\npath = \"/usr/bin/crun\"\nroot = \"/run/x\"\nextra_args = [\"--debug\"]\n",
    )])
    .expect("valid");
    let text = config.dump().expect("TOML");
    let again = Config::from_table(parse("dump", &text).expect("only known keys").table).expect("valid");
    assert_eq!(again, config);
}

#[test]
fn rules_of_all_files_count_in_the_order_of_the_files() {
    let config = load(&[
        ("conf.d/20-b.toml", "[[routing]]\npod = \"b\"\nbackend = \"runc\"\n"),
        ("config.toml", "# first\n[[routing]]\npod = \"c\"\nbackend = \"crun\"\n"),
        (
            "conf.d/10-a.toml",
            "routing = [{ pod = \"a1\", backend = \"runc\" },\n  { pod = \"a2\", backend = \"crun\" }]\n",
        ),
    ])
    .expect("valid");
    let seen: Vec<(&str, &str, usize)> = config
        .routing
        .iter()
        .map(|rule| {
            let file = rule.place.file.rsplit('/').next().unwrap_or_default();
            (rule.pod.as_ref().map_or("", |pod| pod.as_str()), file, rule.place.line)
        })
        .collect();
    assert_eq!(
        seen,
        [("c", "config.toml", 2), ("a1", "10-a.toml", 1), ("a2", "10-a.toml", 2), ("b", "20-b.toml", 1)]
    );
    assert!(!config.fixed);
}

#[test]
fn a_wrong_rule_is_an_error_with_its_place() {
    let wrong = |text: &str| load(&[("conf.d/50-r.toml", text)]).expect_err(text).to_string();
    for (text, place, said) in [
        ("[[routing]]\npod = \"web-[\"\nbackend = \"runc\"\n", "50-r.toml:2:7: ", "'web-[' is not a pattern"),
        (
            "[[routing]]\nbackend = \"runc\"\nlabels = { a = \"x\", b = \"**\" }\n",
            "50-r.toml:3:25: ",
            "write * for **",
        ),
        (
            "[[routing]]\nbackend = \"runc\"\n[[routing]]\npod = \"x\"\n",
            "50-r.toml:3:1: ",
            "missing field `backend`",
        ),
        ("[[routing]]\npod = 7\nbackend = \"runc\"\n", "50-r.toml:2:7: ", "invalid type"),
        ("[[routing]]\nlabels = \"a=b\"\nbackend = \"runc\"\n", "50-r.toml:2:10: ", "invalid type"),
        ("[routing]\nbackend = \"runc\"\n", "50-r.toml:1:1: ", "invalid type"),
        ("[[routing]]\npods = \"x\"\nbackend = \"runc\"\n", "50-r.toml:2:1: ", "did you mean 'routing.pod'?"),
        (
            "[[routing]]\npod = \"x\"\nbackend = \"kata\"\n",
            "50-r.toml:3:11: ",
            "backend is 'kata', which has no [runtime.kata] section; configured: crun, lxc, runc",
        ),
    ] {
        let error = wrong(text);
        assert!(error.contains(place) && error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_rule_may_name_a_runtime_of_another_file() {
    let rule = "[[routing]]\nbackend = \"youki\"\n";
    let config = load(&[("config.toml", rule), ("conf.d/10-youki.toml", "[runtime.youki]\n")]);
    assert_eq!(config.expect("valid").routing.len(), 1);
}

#[test]
fn options_that_choose_the_runtime_are_not_overruled_by_rules_of_the_files() {
    let dir = directory(&[
        ("config.toml", "[runtime]\ndefault = \"crun\"\n[[routing]]\npod = \"files\"\nbackend = \"runc\"\n"),
        ("handler.toml", "[runtime]\ndefault = \"runc\"\n"),
        ("routed.toml", "[[routing]]\npod = \"handler\"\nbackend = \"runc\"\n"),
    ]);
    let rules = |file: Option<&str>, body: Option<&str>| {
        let sources = Sources {
            directory: Some(dir.path().to_owned()),
            file: file.map(|file| dir.path().join(file)),
            body: body.map(str::to_owned),
        };
        let config = Config::load(&sources).expect("valid");
        let pods = config.routing.iter().filter_map(|rule| Some(rule.pod.as_ref()?.to_string()));
        (pods.collect::<Vec<_>>().join(" "), config.fixed)
    };
    let chooses = "[runtime]\ndefault = \"runc\"\n";
    let brings = "[[routing]]\npod = \"body\"\nbackend = \"runc\"\n";
    let both = format!("{chooses}{brings}");
    for (file, body, expected) in [
        (None, None, ("files", false)),
        (None, Some("[log]\nlevel = \"debug\"\n"), ("files", false)),
        (None, Some(chooses), ("", true)),
        (None, Some(brings), ("files body", false)),
        (None, Some(both.as_str()), ("body", false)),
        (Some("handler.toml"), None, ("", true)),
        (Some("handler.toml"), Some(brings), ("body", false)),
        (Some("routed.toml"), None, ("handler", false)),
        (Some("routed.toml"), Some(chooses), ("", true)),
    ] {
        assert_eq!(rules(file, body), (expected.0.to_owned(), expected.1), "{file:?} {body:?}");
    }
}

#[test]
fn dumped_rules_read_back_as_the_same_and_say_where_they_come_from() {
    let config = load(&[(
        "config.toml",
        "[[routing]]\nnamespace = \"a*\"\npod = \"p\"\nimage = \"*/x:[0-9]\"\nbackend = \"runc\"\n\
         labels = { \"k8s.io/app\" = \"web\" }\nannotations.\"a b\" = \"?\"\n\
         [[routing]]\nbackend = \"crun\"\n",
    )])
    .expect("valid");
    let text = config.dump().expect("TOML");
    assert!(text.contains("config.toml:1\n[[routing]]\n") && text.contains("config.toml:8\n"), "{text}");
    let again: Vec<Rule> = parse("dump", &text)
        .expect("only known keys")
        .rules
        .into_iter()
        .zip(&config.routing)
        .map(|((rule, _), first)| Rule { place: first.place.clone(), ..rule })
        .collect();
    assert_eq!(again, config.routing);
}
