//! The servers that are compared, each alone on a core: nginx answering a constant, and pixeld.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::machine::on_the_servers_core;
use crate::pixels::Pixels;
use crate::usage::{Usage, threads};
use pixeld_core::ids::ImageId;
use pixeld_testkit::postgres::{Postgres, open_dir};
use pixeld_testkit::process::{children, free_port, signal, wait_until};
use pixeld_testkit::server::{Server, Settings, get};

/// How long everything may take to reach PostgreSQL after a load.
const REST: Duration = Duration::from_secs(120);

/// A server to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// nginx with `empty_gif` and a buffered access log.
    Nginx,
    /// pixeld, `PIXELD_DURABILITY=written`.
    Written,
    /// pixeld, `PIXELD_DURABILITY=synced`.
    Synced,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nginx => "nginx, buffered log",
            Kind::Written => "pixeld, written",
            Kind::Synced => "pixeld, synced",
        }
    }
}

/// A running server.
pub enum Contestant<'a> {
    /// nginx.
    Nginx(Nginx),
    /// pixeld, its image, and its database.
    Pixeld(Box<Server>, ImageId, &'a Postgres, tempfile::TempDir),
}

impl<'a> Contestant<'a> {
    /// Starts one.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(kind: Kind, program: &str, postgres: &'a Postgres) -> anyhow::Result<Contestant<'a>> {
        let durability = match kind {
            Kind::Nginx => return Ok(Contestant::Nginx(Nginx::start()?)),
            Kind::Written => "written",
            Kind::Synced => "synced",
        };
        let dir = open_dir()?;
        let settings = pixeld_settings(program, dir.path())?.with("DATABASE_URL", postgres.url());
        let (server, image) = start_pixeld(settings.with("PIXELD_DURABILITY", durability))?;
        Ok(Contestant::Pixeld(Box::new(server), image, postgres, dir))
    }

    /// Its address.
    pub fn target(&self) -> SocketAddr {
        match self {
            Contestant::Nginx(nginx) => nginx.address,
            Contestant::Pixeld(server, ..) => server.public(),
        }
    }

    /// Pixels that it serves.
    pub fn pixels(&self) -> Pixels {
        let image = match self {
            Contestant::Nginx(_) => ImageId::from_u128(1),
            Contestant::Pixeld(_, image, ..) => *image,
        };
        Pixels::of(image).with_forwarded_addresses()
    }

    /// The resources that its processes have used.
    ///
    /// # Errors
    /// If it is gone.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        match self {
            Contestant::Nginx(nginx) => Usage::of_tree(nginx.child.id()),
            Contestant::Pixeld(server, ..) => Usage::of_tree(server.pid()),
        }
    }

    /// CPU time of its threads, user and system, by their names.
    ///
    /// # Errors
    /// If it is gone.
    pub fn threads(&self) -> anyhow::Result<BTreeMap<String, [Duration; 2]>> {
        match self {
            Contestant::Nginx(nginx) => {
                let worker = children(nginx.child.id()).first().copied();
                threads(worker.context("nginx has no worker")?)
            }
            Contestant::Pixeld(server, ..) => threads(server.pid()),
        }
    }

    /// The resources that PostgreSQL has used; none for nginx, which has no PostgreSQL.
    ///
    /// # Errors
    /// If it is gone.
    pub fn database_usage(&self) -> anyhow::Result<Usage> {
        match self {
            Contestant::Nginx(_) => Ok(Usage::default()),
            Contestant::Pixeld(_, _, postgres, _) => Usage::of_tree(postgres.pid()?),
        }
    }

    /// Empties the table of hits, so that all measurements begin alike.
    pub fn forget_rows(&self) -> anyhow::Result<()> {
        if let Contestant::Pixeld(_, _, postgres, _) = self {
            postgres.query("TRUNCATE hits")?;
            postgres.query("CHECKPOINT")?;
        }
        Ok(())
    }

    /// Waits until everything that it has accepted is in its place.
    ///
    /// # Errors
    /// If that takes too long, or hits were dropped.
    pub fn settle(&self) -> anyhow::Result<()> {
        match self {
            // The log is flushed each second.
            Contestant::Nginx(_) => std::thread::sleep(Duration::from_millis(1100)),
            Contestant::Pixeld(server, ..) => {
                let metrics = server.at_rest(REST)?;
                anyhow::ensure!(metrics.dropped_all() == 0.0, "hits were dropped:\n{}", metrics.0);
            }
        }
        Ok(())
    }
}

/// Settings of a compared pixeld: one thread on the server's core, and otherwise the defaults, including throttle and
/// address rate; each request has its own client address, so that neither drops one.
///
/// # Errors
/// If no port is free.
pub fn pixeld_settings(program: &str, dir: &std::path::Path) -> anyhow::Result<Settings> {
    let mut settings = Settings::new(program, dir.join("data"))?
        .with("PIXELD_THREADS", "1")
        .with("PIXELD_LOG", "warn")
        .with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8");
    settings.variables.remove("PIXELD_THROTTLE");
    settings.variables.remove("PIXELD_ADDRESS_RATE");
    settings.wrapper = on_the_servers_core();
    Ok(settings)
}

/// Adds nginx's own constant as the image, starts pixeld, and waits until it serves that.
///
/// # Errors
/// If it does not.
pub fn start_pixeld(settings: Settings) -> anyhow::Result<(Server, ImageId)> {
    fs::create_dir_all(&settings.data_dir)?;
    let picture = settings.data_dir.join("empty.gif");
    fs::write(&picture, pixeld_edge::images::TRANSPARENT_GIF)?;
    settings.run(&["migrate"])?;
    let image: ImageId = settings.run(&["image", "add", &picture.to_string_lossy()])?.trim().parse()?;
    let server = settings.start()?;
    let path = format!("/image/{image}.gif");
    wait_until("the image", Duration::from_secs(20), || {
        get(server.public(), &path).is_ok_and(|answer| answer.status == 200)
    })?;
    Ok((server, image))
}

/// nginx, even if it is outside users' PATH.
fn nginx_program() -> &'static str {
    let of_debian = "/usr/sbin/nginx";
    if std::path::Path::new(of_debian).exists() { of_debian } else { "nginx" }
}

/// A running nginx; stopped when dropped.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn start() -> anyhow::Result<Nginx> {
        let dir = open_dir()?;
        let port = free_port()?;
        let conf = include_str!("../nginx.conf");
        let conf = conf.replace("{dir}", &dir.path().to_string_lossy()).replace("{port}", &port.to_string());
        fs::write(dir.path().join("nginx.conf"), conf)?;
        // If we are root, its worker runs as another user, and writes its log here.
        let words = on_the_servers_core();
        let error_log = fs::File::create(dir.path().join("stderr"))?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args([nginx_program(), "-p"])
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(error_log)
            .spawn()
            .context("nginx cannot be started; install it (Debian, Ubuntu: apt-get install nginx-light)")?;
        let nginx = Nginx { child, address: SocketAddr::from(([127, 0, 0, 1], port)), _dir: dir };
        let healthy = wait_until("nginx", Duration::from_secs(10), || {
            get(nginx.address, "/healthz").is_ok_and(|answer| answer.status == 200)
        });
        healthy.with_context(|| fs::read_to_string(nginx._dir.path().join("stderr")).unwrap_or_default())?;
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Err(error) = signal(self.child.id(), Signal::SIGTERM).and_then(|()| Ok(self.child.wait()?)) {
            eprintln!("nginx did not stop: {error:#}");
        }
    }
}
