//! Who can open a repository, from the command line.

use std::fs;
use std::process::Command;

use crate::common::{Home, PASSPHRASE, Ran, bare, contents, run};

/// An identity of age in a file of this home; returns its recipient.
fn identity(home: &Home, name: &str) -> String {
    let output = Command::new("age-keygen").output().expect("age-keygen, of the package age");
    let text = String::from_utf8(output.stdout).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    let recipient = recipient.unwrap().to_owned();
    fs::write(home.path(name), text).unwrap();
    recipient
}

/// Runs the program with an identity.
fn with_identity(home: &Home, name: &str, arguments: &[&str]) -> Ran {
    let (repo, file) = (home.arg("repo"), home.arg(name));
    let mut all = vec!["--repo", &repo, "--identity-file", &file];
    all.extend_from_slice(arguments);
    run(&mut bare(&all))
}

fn labels(home: &Home) -> Vec<String> {
    let ran = home.run(&["key", "list", "--json"]).expect(0);
    let keys = ran.events_of("key");
    keys.iter().map(|key| key["label"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_stolen_key_opens_nothing_that_comes_later() {
    let home = Home::new();
    let tree = home.tree();
    let (ops, thief) = (identity(&home, "ops"), identity(&home, "thief"));
    home.run(&["key", "add", "--label", "ops", "--recipient", &ops]).expect(0);
    home.run(&["key", "add", "--label", "laptop", "--recipient", &thief]).expect(0);
    with_identity(&home, "thief", &["backup", "files", &tree, "--name", "tree"]).expect(0);
    assert_eq!(labels(&home), ["first", "laptop", "ops"]);

    let ran = home.run(&["key", "remove", "laptop"]).expect(0);
    assert!(ran.0.stderr.contains("lifeboat key rotate"), "{ran}");
    let ran = home.run(&["key", "rotate", "--json"]).expect(0);
    assert_eq!((ran.end()["epoch"].as_u64(), ran.end()["keys"].as_u64()), (Some(2), Some(2)));
    with_identity(&home, "thief", &["snapshots"]).expect(1).error_says(&["the identity does not"]);

    with_identity(&home, "ops", &["backup", "files", &tree, "--name", "tree"]).expect(0);
    home.run(&["restore", "latest", "--to", &home.arg("out")]).expect(0);
    assert_eq!(fs::read(home.path("out/greeting")).unwrap(), b"hello");
    home.run(&["verify", "--every-byte"]).expect(0);
    home.run(&["key", "remove", "first"]).expect(1).error_says(&["in use", "--even-in-use"]);
    home.run(&["key", "remove", "first", "--even-in-use"]).expect(0);
    home.run(&["snapshots"]).expect(1).error_says(&["passphrase does not open"]);
    let ran = with_identity(&home, "ops", &["key", "remove", "ops", "--even-in-use"]).expect(1);
    ran.error_says(&["the last one"]);
}

#[test]
fn a_server_writes_and_does_not_read() {
    let home = Home::new();
    let tree = home.tree();
    let server = identity(&home, "server");
    let add = ["key", "add", "--label", "server", "--write-only", "--recipient", &server];
    home.run(&add).expect(0);
    let back_up = ["backup", "files", &tree, "--name", "tree"];
    let ran = with_identity(&home, "server", &back_up).expect(0);
    assert!(ran.0.stderr.contains("may write and not read"), "{ran}");
    let out = home.arg("out");
    for arguments in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["restore", "latest", "--to", &out],
        &["verify"],
        &["key", "add", "--label", "x", "--recipient", &server],
        &["key", "remove", "first"],
        &["key", "rotate"],
    ] {
        with_identity(&home, "server", arguments).expect(1).error_says(&["may write and not read"]);
    }
    with_identity(&home, "server", &["key", "list"]).expect(0);
    with_identity(&home, "server", &["doctor"]).expect(0);
    home.run(&["restore", "latest", "--to", &out]).expect(0);
    assert_eq!(fs::read(home.path("out/sub/data")).unwrap(), vec![7; 300_000]);
    home.run(&["verify", "--every-byte"]).expect(0);
}

#[test]
fn a_repository_can_be_made_for_somebody_who_is_not_there() {
    let home = Home::empty();
    let ops = identity(&home, "ops");
    let repo = home.arg("repo");
    let init = ["--repo", &repo, "init", "--label", "ops", "--recipient", &ops];
    let ran = run(&mut bare(&init)).expect(0);
    assert!(ran.0.stderr.contains("the identity of the recipient"), "{ran}");
    home.run(&["snapshots"]).expect(1).error_says(&["does not open its key"]);
    with_identity(&home, "ops", &["snapshots"]).expect(0);
    let variables = [("LIFEBOAT_REPO", &repo), ("LIFEBOAT_IDENTITY_FILE", &home.arg("ops"))];
    run(bare(&["snapshots"]).envs(variables)).expect(0);
    // Nothing of the identity is in the repository, or in what is said of a broken one.
    let text = fs::read_to_string(home.path("ops")).unwrap();
    let private = text.lines().last().unwrap();
    for (path, bytes) in contents(&home.repo()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(private), "{}", path.display());
    }
    fs::write(home.path("ops"), &text[..text.len() - 3]).unwrap();
    let ran = with_identity(&home, "ops", &["snapshots"]).expect(1);
    assert!(!ran.to_string().contains(&private[..30]), "{ran}");
    ran.error_says(&["identity file", "AGE-SECRET-KEY-1…"]);
    let wrong = ["--repo", &home.arg("other"), "init", "--recipient", "age1nobody"];
    run(&mut bare(&wrong)).expect(2).error_says(&["age1nobody"]);
}

#[test]
fn a_command_keeps_a_key_and_a_second_passphrase_comes_from_a_file() {
    let home = Home::new();
    // Turns round what it is given: a secret is wrapped by its own other side.
    let script = "#!/bin/sh\nexec sed -e 's/\"secret\"/\"x\"/; s/\"wrapped\"/\"secret\"/; \
                  s/\"x\"/\"wrapped\"/'\n";
    let keeper = home.path("keeper");
    fs::write(&keeper, script).unwrap();
    fs::set_permissions(&keeper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let command = format!("{} and arguments", home.arg("keeper"));
    home.run(&["key", "add", "--label", "kms", "--new-key-command", &command]).expect(0);
    fs::write(home.path("second"), "another-one\n").unwrap();
    let second = home.arg("second");
    home.run(&["key", "add", "--label", "second", "--new-passphrase-file", &second]).expect(0);
    home.run(&["key", "add", "--label", "none"]).expect(2).error_says(&["--recipient"]);
    home.run(&["key", "rotate"]).expect(0);

    let repo = home.arg("repo");
    let with = |option: &str, value: &str| {
        run(&mut bare(&["--repo", &repo, option, value, "key", "list", "--json"]))
    };
    for (option, value, label) in [
        ("--key-command", command.as_str(), "kms"),
        ("--passphrase-file", &second, "second"),
        ("--passphrase-file", &home.arg("passphrase"), "first"),
    ] {
        let keys = with(option, value).expect(0).events_of("key");
        let own = keys.iter().find(|key| key["in_use"] == true).unwrap();
        assert_eq!((own["label"].as_str(), own["epoch"].as_u64()), (Some(label), Some(2)));
    }
    with("--key-command", "/nothing/here").expect(1).error_says(&["/nothing/here", "docs/keys.md"]);
    with("--key-command", "false").expect(1).error_says(&["key command false", "exit"]);
    let both = ["--repo", &repo, "--key-command", "x", "--identity-file", "y", "snapshots"];
    run(&mut bare(&both)).expect(2);
    let ran = home.run(&["key", "list", "--verbose"]).expect(0);
    assert!(!ran.to_string().contains(PASSPHRASE), "{ran}");
}
