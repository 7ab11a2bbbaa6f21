//! docker-compose.yml and the Dockerfile: no service has more rights than it needs, and their settings are those of the
//! program. `compose_run` runs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

use crate::kit::support::{PIXELD, open_dir};
use crate::ship::edge_nginx::ROOT;

pub fn compose() -> Yaml {
    let text = fs::read_to_string(Path::new(ROOT).join("docker-compose.yml")).unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

pub fn words(list: &Yaml) -> Vec<String> {
    list.as_vec()
        .into_iter()
        .flatten()
        .map(|word| word.as_str().unwrap_or_else(|| panic!("{word:?}")).to_owned())
        .collect()
}

pub fn table(map: &Yaml) -> BTreeMap<String, String> {
    let entries = map.as_hash().into_iter().flatten();
    entries.map(|(name, value)| (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned())).collect()
}

/// Seconds of `20s`.
pub fn seconds(value: &Yaml) -> u64 {
    value.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

fn names(map: &Yaml) -> Vec<&str> {
    map.as_hash().into_iter().flatten().map(|(name, _)| name.as_str().unwrap()).collect()
}

/// The services, each after those that it waits for.
pub fn start_order(services: &Yaml) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    while order.len() < names(services).len() {
        let next = names(services).into_iter().find(|name| {
            let waits_for = names(&services[*name]["depends_on"]);
            !order.iter().any(|done| done == name)
                && waits_for.iter().all(|other| order.iter().any(|done| done == other))
        });
        order.push(next.expect("no circle").to_owned());
    }
    order
}

#[test]
fn every_service_is_bounded_unprivileged_and_reached_by_no_more_than_it_must() {
    let compose = compose();
    let services = &compose["services"];
    assert_eq!(start_order(services), ["postgres", "redis", "pixeld", "nginx"]);
    for name in names(services) {
        let service = &services[name];
        let (image, tag) = service["image"].as_str().unwrap().split_once(':').unwrap();
        assert!(tag.starts_with(|first: char| first.is_ascii_digit()) && tag.contains('.'), "{image}:{tag}");
        let (user, group) = service["user"].as_str().unwrap().split_once(':').unwrap();
        assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0, "{name}");
        assert_eq!(service["read_only"].as_bool(), Some(true), "{name}");
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert!(service["cap_add"].is_badvalue() && service["privileged"].is_badvalue(), "{name}");
        assert_eq!(words(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        let limits = table_of_all(&service["deploy"]["resources"]["limits"]);
        assert!(["cpus", "memory", "pids"].iter().all(|limit| limits.contains_key(*limit)), "{name}: {limits:?}");
        let logging = table(&service["logging"]["options"]);
        assert!(logging.contains_key("max-size") && logging.contains_key("max-file"), "{name}");
        assert_eq!(words(&service["healthcheck"]["test"])[0], "CMD", "{name}");
        assert_eq!(service["restart"].as_str(), Some("unless-stopped"), "{name}");
        assert!(seconds(&service["stop_grace_period"]) >= 10, "{name}");
        for (variable, value) in table(&service["environment"]) {
            let is_secret = ["PASSWORD", "DATABASE_URL", "KEYS", "DSN"].iter().any(|word| variable.contains(word));
            assert!(
                !is_secret || (variable.ends_with("_FILE") && value.starts_with("/run/secrets/")),
                "{name}: {variable}"
            );
        }
    }
    // The stores: reachable only from pixeld, with no way out.
    assert_eq!(compose["networks"]["stores"]["internal"].as_bool(), Some(true));
    assert_eq!(
        (words(&services["postgres"]["networks"]), words(&services["redis"]["networks"])),
        (vec!["stores".into()], vec!["stores".into()])
    );
    assert_eq!(
        (names(&services["nginx"]["networks"]), names(&services["pixeld"]["networks"])),
        (vec!["edge"], vec!["edge", "stores"])
    );
    assert!(services["postgres"]["ports"].is_badvalue() && services["redis"]["ports"].is_badvalue());
    assert_eq!(words(&services["pixeld"]["ports"]), ["127.0.0.1:8081:8081"]);
    // One process of nginx for each core that it has, not for each of the machine's.
    let cores = services["nginx"]["deploy"]["resources"]["limits"]["cpus"].as_str().unwrap();
    let workers = fs::read_to_string(Path::new(ROOT).join("nginx/workers.compose.conf")).unwrap();
    assert!(workers.ends_with(&format!("\nworker_processes {cores};\n")), "{workers}");
    assert!(
        words(&services["nginx"]["volumes"])
            .contains(&"./nginx/workers.compose.conf:/etc/nginx/workers.conf:ro".into())
    );
    // The throw-away containers of the docs use an existing image.
    let docs = fs::read_to_string(Path::new(ROOT).join("docs/backup.md")).unwrap();
    let image = services["postgres"]["image"].as_str().unwrap();
    assert_eq!(docs.matches(" postgres:").count(), docs.matches(&format!(" {image} ")).count(), "{image}");
    // Not the host's [::]: all its readers would have the address of Docker's bridge.
    assert_eq!(words(&services["nginx"]["ports"]), ["0.0.0.0:80:80", "0.0.0.0:443:443"]);
    // pixeld trusts nginx, and no other peer.
    let environment = table(&services["pixeld"]["environment"]);
    let nginx = services["nginx"]["networks"]["edge"]["ipv4_address"].as_str().unwrap();
    assert_eq!(environment["PIXELD_TRUSTED_PROXIES"], nginx);
    let drain: u64 = environment["PIXELD_DRAIN_SECONDS"].parse().unwrap();
    assert!(seconds(&services["pixeld"]["stop_grace_period"]) >= drain + 5);
    assert_eq!(names(&compose["volumes"]), ["spool", "database", "acme"]);
    assert_eq!(words(&services["pixeld"]["volumes"]), [format!("spool:{}", image_environment()["PIXELD_DATA_DIR"])]);
}

fn table_of_all(map: &Yaml) -> BTreeMap<String, Yaml> {
    map.as_hash()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), value.clone()))
        .collect()
}

/// What ENV of the Dockerfile's last stage sets.
pub fn image_environment() -> BTreeMap<String, String> {
    let text = fs::read_to_string(Path::new(ROOT).join("Dockerfile")).unwrap().replace("\\\n", " ");
    let last = text.rsplit("\nFROM ").next().unwrap();
    let lines = last.lines().filter_map(|line| line.strip_prefix("ENV "));
    lines
        .flat_map(str::split_whitespace)
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn the_dockerfiles_words_are_those_of_the_program_and_the_compose_file() {
    let text = fs::read_to_string(Path::new(ROOT).join("Dockerfile")).unwrap();
    for line in
        ["ENTRYPOINT [\"pixeld\"]", "CMD [\"serve\"]", "STOPSIGNAL SIGTERM", "USER 65532:65532", "EXPOSE 8080 8081"]
    {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    assert!(text.contains("CMD [\"pixeld\", \"healthcheck\"]"));
    let version = format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "{version}");
    let compose = compose();
    let pixeld = &compose["services"]["pixeld"];
    assert_eq!(pixeld["image"].as_str(), Some(concat!("pixeld:", env!("CARGO_PKG_VERSION"))));
    assert_eq!(words(&pixeld["healthcheck"]["test"])[1..], ["pixeld", "healthcheck"]);
    assert_eq!(pixeld["user"].as_str(), Some("65532:65532"));
    assert_eq!(image_environment()["PIXELD_REQUIRE_DATABASE_URL"], "true");
    // Without a database the image's error says what to set.
    let output = Command::new(PIXELD).env_clear().envs(image_environment()).arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(64) && said.contains("DATABASE_URL is not set"), "{said}");
}

#[test]
fn the_image_is_built_by_the_compiler_that_is_tested_with() {
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let toolchain = read("rust-toolchain.toml");
    let (_, rest) = toolchain.split_once("\nchannel = \"").unwrap();
    let (version, _) = rest.split_once('"').unwrap();
    assert!(read("Dockerfile").contains(&format!("\nFROM rust:{version}-")), "{version}");
}

#[test]
fn cargo_takes_the_manifests_with_empty_sources_as_the_dockerfile_makes_them() {
    let dir = open_dir();
    let dockerfile = fs::read_to_string(Path::new(ROOT).join("Dockerfile")).unwrap();
    let workspace = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = [")?.strip_suffix(']')).unwrap();
    let members: Vec<String> =
        members.split(", ").map(|member| format!("{}/Cargo.toml", member.trim_matches('"'))).collect();
    for file in &members {
        assert!(dockerfile.contains(&format!("COPY {file} {file}\n")), "{file}");
    }
    let others = ["Cargo.toml", "Cargo.lock", "build.rs", "scripts/empty-sources.sh"].map(str::to_owned);
    for file in others.iter().chain(&members) {
        let target = dir.path().join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(Path::new(ROOT).join(file), target).unwrap();
    }
    let made = Command::new("sh").arg(dir.path().join("scripts/empty-sources.sh")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let text = String::from_utf8(metadata.stdout).unwrap();
    assert!(text.contains("src/main.rs") && text.contains("benches/hot_path.rs"));
    // In the builder, the sources are then copied over these.
    let again = Command::new("sh").arg(Path::new(ROOT).join("scripts/empty-sources.sh")).output().unwrap();
    let main = fs::read_to_string(Path::new(ROOT).join("src/main.rs")).unwrap();
    assert!(again.status.success() && main.len() > 100, "a work tree stays as it is");
}
