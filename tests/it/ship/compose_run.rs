//! What docker-compose.yml and the Dockerfile describe, run with the machine's own programs: this machine may have no
//! container engine. The environment, secrets, users, start order and nginx are the same; hosts are ports of loopback.
//! pixeld runs as in its container: in a read-only root that has only the libraries and the certificates; it can write
//! only to the spool's volume.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;
use pixeld_testkit::process::{free_port, is_alive, signal, wait_until};
use pixeld_testkit::server::get;
use tempfile::TempDir;
use uuid::Uuid;
use yaml_rust2::Yaml;

use crate::kit::support::{PATIENCE, PIXELD, beside, open_dir};
use crate::ship::compose::{compose, image_environment, seconds, start_order, table, words};
use crate::ship::edge_nginx::{Nginx, PUBLIC, ROOT};

/// How long a service may take to become healthy.
const HEALTHY_WAIT: Duration = PATIENCE;

/// A program of a service; killed when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        if is_alive(self.0.id()) {
            signal(self.0.id(), Signal::SIGTERM).unwrap_or_default();
            drop(wait_until("its end", PATIENCE, || !is_alive(self.0.id())));
            self.0.kill().unwrap_or_default();
        }
        drop(self.0.wait());
    }
}

fn succeeded(output: std::io::Result<Output>) -> String {
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// As a container's user if we are root; otherwise as ourselves.
fn as_user(user: &str) -> Vec<String> {
    let (uid, gid) = user.split_once(':').unwrap();
    let words =
        ["setpriv", "--no-new-privs", "--reuid", uid, "--regid", gid, "--clear-groups", "--bounding-set", "-all"];
    let words: &[&str] = if nix::unistd::geteuid().is_root() { &words } else { &words[..2] };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
    command
}

/// A directory that is a service's own.
fn owned(path: PathBuf, user: &str) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    if nix::unistd::geteuid().is_root() {
        let (uid, gid) = user.split_once(':').unwrap();
        chown(&path, Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).unwrap();
    }
    path
}

/// The folder of initdb and postgres.
fn postgres_programs() -> PathBuf {
    let of_path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let given = std::env::var_os("PG_BIN").map(PathBuf::from);
    let mut all = given.into_iter().chain(of_path).chain(debian);
    all.find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists()).expect("PostgreSQL")
}

/// PostgreSQL as its image starts it: with the user, the database and the password from the environment.
fn start_postgres(service: &Yaml, dir: &Path, secrets: &Path, port: u16) -> Service {
    let environment = table(&service["environment"]);
    let (user, database) = (&environment["POSTGRES_USER"], &environment["POSTGRES_DB"]);
    let password_file = secrets.join(environment["POSTGRES_PASSWORD_FILE"].strip_prefix("/run/secrets/").unwrap());
    // initdb needs a user with a name, which the container's user does not have on this machine.
    let here = User::from_name("postgres").unwrap().map(|user| format!("{}:{}", user.uid, user.gid));
    let user_here = here.as_deref().unwrap_or("999:999");
    let data = owned(dir.join("database"), user_here);
    let programs = postgres_programs();
    let run = |words: &[&str]| {
        let mut all = as_user(user_here);
        all.push(programs.join(words[0]).to_str().unwrap().to_owned());
        all.extend(words[1..].iter().map(|word| (*word).to_owned()));
        command(&all)
    };
    let data_text = data.to_str().unwrap();
    let password_file = format!("--pwfile={}", password_file.display());
    succeeded(
        run(&[
            "initdb",
            "-D",
            data_text,
            "-U",
            user,
            &password_file,
            "--auth=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
        ])
        .output(),
    );
    // As in the image, with a server that cannot be reached.
    let mut single = run(&["postgres", "--single", "-D", data_text, "postgres"]);
    let mut child = single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("CREATE DATABASE {database}\n").as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    let log = File::create(dir.join("postgres.log")).unwrap();
    let port = port.to_string();
    let mut server = run(&["postgres", "-D", data_text, "-p", &port, "-h", "127.0.0.1", "-k", data_text]);
    Service(server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

/// Redis with the command of the compose file.
fn start_redis(service: &Yaml, dir: &Path, port: u16) -> Service {
    let asked = words(&service["command"]);
    assert_eq!(asked[0], "redis-server");
    let user = service["user"].as_str().unwrap();
    let data = owned(dir.join("redis"), user);
    let mut all = as_user(user);
    // It has two names, and acts by the one under which it is called.
    let link = dir.join("redis-server");
    std::os::unix::fs::symlink(pixeld_testkit::redis::program().unwrap(), &link).unwrap();
    all.push(link.to_str().unwrap().to_owned());
    all.extend(asked[1..].iter().cloned());
    all.extend(
        ["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", data.to_str().unwrap()].map(str::to_owned),
    );
    let log = File::create(dir.join("redis.log")).unwrap();
    Service(command(&all).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

/// The contents of pixeld's container.
struct Container {
    /// The root, and the volume that is mounted in it.
    root: PathBuf,
    spool: PathBuf,
    user: String,
    environment: BTreeMap<String, String>,
}

impl Container {
    /// The libraries that the program needs and the base image has, its certificates, the program, the secrets.
    fn new(dir: &Path, user: &str, environment: BTreeMap<String, String>, secrets: &[(&str, String)]) -> Container {
        let root = dir.join("root");
        let of_base = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"];
        let listed = succeeded(Command::new("ldd").arg(PIXELD).output());
        for line in listed.lines().filter(|line| !line.contains("linux-vdso")) {
            let path = line.split_whitespace().find(|word| word.starts_with('/')).unwrap_or_else(|| panic!("{line}"));
            let name = Path::new(path).file_name().unwrap().to_str().unwrap();
            assert!(of_base.contains(&name) || name.starts_with("ld-linux"), "distroless/cc has no {name}");
            put(Path::new(path), &root.join(&path[1..]), 0o755);
        }
        put(Path::new(PIXELD), &root.join("usr/local/bin/pixeld"), 0o755);
        let bundle = "etc/ssl/certs/ca-certificates.crt";
        put(&Path::new("/").join(bundle), &root.join(bundle), 0o644);
        fs::create_dir_all(root.join("run/secrets")).unwrap();
        for (name, text) in secrets {
            let path = root.join("run/secrets").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
        }
        fs::create_dir_all(root.join("proc")).unwrap();
        fs::create_dir_all(root.join("var/lib/pixeld")).unwrap();
        Container { root, spool: owned(dir.join("spool"), user), user: user.to_owned(), environment }
    }

    /// A command of the image in it.
    fn command(&self, arguments: &[&str]) -> Command {
        let is_root = nix::unistd::geteuid().is_root();
        let inside = "mount --bind \"$1\" \"$1\" && mount --bind \"$2\" \"$1/var/lib/pixeld\" && mount --rbind /proc \"$1/proc\" \
                      && mount -o remount,bind,ro \"$1\" && cd / && root=$1 && shift 2 && exec \"$@\"";
        let chroot = format!("--userspec={}", self.user);
        let root = self.root.to_str().unwrap();
        let mut words = vec!["setpriv", "--no-new-privs", "unshare", "--mount"];
        if !is_root {
            words.push("--map-root-user");
        }
        words.extend(["sh", "-c", inside, "sh", root, self.spool.to_str().unwrap(), "chroot"]);
        if is_root {
            words.push(&chroot);
        }
        words.extend([root, "/usr/local/bin/pixeld"]);
        words.extend(arguments);
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let mut command = command(&words);
        command.envs(&self.environment);
        command
    }
}

fn put(from: &Path, to: &Path, mode: u32) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}

/// The parts of the clone that prepare-compose.sh and the compose file's mounts name.
fn clone(dir: &Path) -> PathBuf {
    let clone = dir.join("clone");
    for folder in ["nginx", "scripts"] {
        fs::create_dir_all(clone.join(folder)).unwrap();
        for file in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                fs::copy(&path, clone.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    for _ in 0..2 {
        let said = succeeded(Command::new(clone.join("scripts/prepare-compose.sh")).current_dir("/").output());
        assert!(said.contains("docker compose up --build"), "{said}");
    }
    clone
}

/// nginx's files, at the paths where the compose file mounts them.
fn nginx_conf(compose: &Yaml, clone: &Path, dir: &Path) {
    let service = &compose["services"]["nginx"];
    let inside =
        |path: &str| dir.join("conf").join(path.strip_prefix("/etc/nginx/").unwrap_or_else(|| panic!("{path}")));
    for volume in words(&service["volumes"]) {
        let [from, to, mode] = volume.split(':').collect::<Vec<_>>()[..] else { panic!("{volume}") };
        assert_eq!(mode, "ro", "{volume}");
        if let Some(file) = from.strip_prefix("./") {
            put(&clone.join(file), &inside(to), 0o644);
        }
    }
    for secret in service["secrets"].as_vec().unwrap() {
        let file = compose["secrets"][secret["source"].as_str().unwrap()]["file"].as_str().unwrap();
        put(&clone.join(file.strip_prefix("./").unwrap()), &inside(secret["target"].as_str().unwrap()), 0o444);
    }
}

/// The compose file's services on this machine, on ports of loopback.
struct Project {
    edge: Option<Nginx>,
    running: BTreeMap<String, Service>,
    /// Where pixeld runs.
    container: Container,
    /// The database's URL on this machine.
    url: String,
    ports: Ports,
    clone: PathBuf,
    compose: Yaml,
    dir: TempDir,
}

struct Ports {
    postgres: u16,
    redis: u16,
    public: u16,
    admin: u16,
}

/// The environment of pixeld's container, with ports of loopback instead of the file's other hosts.
fn environment(compose: &Yaml, ports: &Ports) -> BTreeMap<String, String> {
    let mut environment = image_environment();
    environment.extend(table(&compose["services"]["pixeld"]["environment"]));
    for (name, from, to) in [
        ("PIXELD_LISTEN", "0.0.0.0:8080", format!("127.0.0.1:{}", ports.public)),
        ("PIXELD_ADMIN_LISTEN", "0.0.0.0:8081", format!("127.0.0.1:{}", ports.admin)),
        ("REDIS_URL", "redis:6379", format!("127.0.0.1:{}", ports.redis)),
        ("PIXELD_TRUSTED_PROXIES", "172.30.77.10", "127.0.0.1".to_owned()),
    ] {
        let value = environment.get_mut(name).unwrap();
        assert!(value.contains(from), "{name}={value}");
        *value = value.replace(from, &to);
    }
    environment
}

impl Project {
    fn prepare() -> Project {
        let (dir, compose) = (open_dir(), compose());
        let clone = clone(dir.path());
        let secrets = clone.join("secrets");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&secrets), mode(&secrets.join("database_url"))), (0o700, 0o444));
        // The engine mounts each file by itself; here users need access to the folders.
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o755)).unwrap();
        let [postgres, redis, public, admin] = [(); 4].map(|()| free_port().unwrap());
        let ports = Ports { postgres, redis, public, admin };
        let environment = environment(&compose, &ports);
        let url = fs::read_to_string(secrets.join("database_url")).unwrap();
        assert!(url.contains("@postgres:5432/"), "the password is not shown");
        let url = url.replace("@postgres:5432/", &format!("@127.0.0.1:{postgres}/"));
        let user = compose["services"]["pixeld"]["user"].as_str().unwrap();
        let container = Container::new(dir.path(), user, environment, &[("database_url", url.clone())]);
        Project { edge: None, running: BTreeMap::new(), container, url, ports, clone, compose, dir }
    }

    /// Starts a service, and waits until the file's own check says that it is healthy.
    fn start(&mut self, name: &str) {
        let (dir, service) = (self.dir.path(), &self.compose["services"][name]);
        let check = || words(&service["healthcheck"]["test"]).split_off(1);
        let program = match name {
            "postgres" => {
                let port = self.ports.postgres;
                let program = start_postgres(service, dir, &self.clone.join("secrets"), port);
                let mut asked = check();
                asked.push(format!("--port={port}"));
                let healthy = wait_until("postgres", HEALTHY_WAIT, || command(&asked).status().unwrap().success());
                assert!(healthy.is_ok(), "{}", fs::read_to_string(dir.join("postgres.log")).unwrap());
                program
            }
            "redis" => {
                let port = self.ports.redis;
                let program = start_redis(service, dir, port);
                let mut asked = check();
                asked.splice(1..1, ["-p".to_owned(), port.to_string()]);
                wait_until("redis", HEALTHY_WAIT, || command(&asked).output().unwrap().stdout == b"PONG\n").unwrap();
                program
            }
            "pixeld" => {
                let log = File::create(dir.join("pixeld.log")).unwrap();
                let mut serve = self.container.command(&["serve"]);
                let program = Service(serve.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
                let is_healthy = || self.container.command(&["healthcheck"]).output().unwrap().status.success();
                let healthy = wait_until("pixeld", HEALTHY_WAIT, is_healthy);
                assert!(healthy.is_ok(), "{}", self.log());
                program
            }
            "nginx" => return self.start_nginx(),
            other => panic!("{other} is not known here"),
        };
        self.running.insert(name.to_owned(), program);
    }

    fn start_nginx(&mut self) {
        let (dir, service) = (self.dir.path(), &self.compose["services"]["nginx"]);
        nginx_conf(&self.compose, &self.clone, dir);
        let [public, admin] =
            [self.ports.public, self.ports.admin].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let user = as_user(service["user"].as_str().unwrap());
        let user: Vec<&str> = user.iter().map(String::as_str).collect();
        let nginx = Nginx::start(dir, [("pixeld:8080", public), ("pixeld:8081", admin)], &user);
        let asked = words(&service["healthcheck"]["test"]).pop().unwrap();
        assert_eq!(asked, "http://127.0.0.1:8082/nginx-status");
        assert_eq!(get(nginx.status(), "/nginx-status").unwrap().status, 200);
        self.edge = Some(nginx);
    }

    fn nginx(&self) -> &Nginx {
        self.edge.as_ref().unwrap()
    }

    /// What pixeld has logged.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("pixeld.log")).unwrap()
    }

    /// pixeld is as confined as in a container.
    fn pixeld_is_confined(&self) {
        let pid = self.running["pixeld"].0.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line) || !nix::unistd::geteuid().is_root(), "{line} is not in {status}");
        }
        let (uid, _) = self.container.user.split_once(':').unwrap();
        assert!(status.contains(&format!("Uid:\t{uid}\t{uid}")) || !nix::unistd::geteuid().is_root(), "{status}");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(mounts.lines().any(|mount| mount.split(' ').nth(4) == Some("/") && mount.contains(" ro,")), "{mounts}");
    }

    /// docker compose exec pixeld pixeld image add …, and a reader from 127.0.0.5. Returns the pixel.
    fn record_a_pixel(&self, recipient: Uuid) -> String {
        let (nginx, container) = (self.nginx(), &self.container);
        fs::copy(Path::new(ROOT).join("src/app/sample.png"), container.spool.join("sample.png")).unwrap();
        let image = succeeded(container.command(&["image", "add", "/var/lib/pixeld/sample.png"]).output());
        let image = image.trim();
        let pixel = format!("https://{PUBLIC}/image/{image}_{}_{recipient}.png", Uuid::new_v4());
        wait_until("the image", PATIENCE, || {
            nginx.fetch(&format!("https://{PUBLIC}/image/{image}.png"), &["--head"]).header("content-type")
                == Some("image/png")
        })
        .unwrap();
        let fetched = nginx.fetch(&pixel, &["--interface", "127.0.0.5", "--header", "X-Forwarded-For: 203.0.113.9"]);
        assert_eq!((fetched.status, fetched.header("content-type")), (200, Some("image/png")));
        let metrics = get(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.admin)), "/metrics").unwrap();
        assert!(
            String::from_utf8_lossy(&metrics.body).contains("\npixeld_redis_up 1"),
            "the Redis of the compose file is used"
        );
        pixel
    }

    /// docker stop.
    fn stop_pixeld_within_its_grace(&mut self) {
        let grace = Duration::from_secs(seconds(&self.compose["services"]["pixeld"]["stop_grace_period"]));
        let mut pixeld = self.running.remove("pixeld").unwrap();
        let began = Instant::now();
        signal(pixeld.0.id(), Signal::SIGTERM).unwrap();
        let ended = pixeld.0.wait().unwrap();
        assert!(ended.success() && began.elapsed() < grace, "{ended} after {:?}\n{}", began.elapsed(), self.log());
    }

    /// What psql prints.
    fn query(&self, sql: &str) -> String {
        let mut asking = Command::new("psql");
        asking.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, self.url.trim()]);
        succeeded(asking.output()).trim().to_owned()
    }
}

#[test]
fn what_the_compose_file_describes_starts_in_its_order_records_a_pixel_and_drains_in_its_grace() {
    let _machine = beside();
    let mut project = Project::prepare();
    for name in start_order(&project.compose["services"]) {
        project.start(&name);
    }
    project.pixeld_is_confined();
    let recipient = Uuid::new_v4();
    let pixel = project.record_a_pixel(recipient);
    // At once after that pixel.
    project.stop_pixeld_within_its_grace();
    let address = project.query(&format!("SELECT host(ip) FROM hits WHERE recipient = '{recipient}'"));
    assert_eq!(address, "127.0.0.5", "{}", project.log());
    let nginx = project.nginx();
    assert!(nginx.fetch(&pixel, &[]).is_nginx_gif(), "an email is not broken meanwhile");
    assert!(!nginx.written().contains(&recipient.to_string()));
    assert!(project.edge.take().unwrap().quit(), "nginx ends well");
}
