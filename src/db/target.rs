//! Where PostgreSQL is, from its URL, with bounds for what the URL leaves unbounded; and the pool of connections to it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::Host;

use super::connector::Connector;
use super::fitness::Unfit;
use super::guard::Guard;
use super::pooler::Pooling;
use super::{CONNECT_TIMEOUT, DbError, POOL_CONNECTIONS_MAX, SESSION_SETTINGS};

/// How long a TCP connection may be silent before our side gives it up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Keeps what the URL sets, and bounds what it does not.
pub(super) fn bound_in_time(target: &mut tokio_postgres::Config) {
    if target.get_connect_timeout().is_none() {
        // With several hosts, one that does not answer must leave time for the next.
        let hosts = target.get_hosts().len().max(target.get_hostaddrs().len()).max(1) as u32;
        target.connect_timeout(CONNECT_TIMEOUT / hosts);
    }
    if target.get_tcp_user_timeout().is_none() {
        target.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if target.get_keepalives_interval().is_none() {
        target.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
        target.keepalives_retries(KEEPALIVE_RETRIES);
    }
}

pub(super) fn make_pool(
    target: &tokio_postgres::Config,
    connector: &Connector,
    pooling: &Arc<Pooling>,
    guard: &Arc<Guard>,
) -> Result<Pool, DbError> {
    let (pooling, to, guard) = (Arc::clone(pooling), shown(target), Arc::clone(guard));
    let mut target = target.clone();
    target.application_name("pixeld look-ups");
    // Verified: a connection that went silent in the pool costs the recycle time-out, not a query's.
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
    let connections = deadpool_postgres::Manager::from_connect(target, connector.clone(), recycling);
    let settle = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let (pooling, to, guard) = (Arc::clone(&pooling), to.clone(), Arc::clone(&guard));
        Box::pin(async move {
            if !pooling.keeps_session(client).await.map_err(HookError::Backend)? {
                return Err(HookError::message(Unfit::Pooler { to }.to_string()));
            }
            client.batch_execute(SESSION_SETTINGS).await.map_err(HookError::Backend)?;
            let checked = guard.check(client).await.map_err(HookError::Backend)?;
            checked.map_err(|unfit| HookError::message(unfit.to_string()))
        })
    });
    Pool::builder(connections)
        .max_size(POOL_CONNECTIONS_MAX)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_secs(5)))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(Duration::from_secs(1)))
        .post_create(settle)
        .build()
        .map_err(|error| DbError::Url(error.to_string()))
}

/// Hosts and database, for error messages.
pub(super) fn shown(target: &tokio_postgres::Config) -> String {
    let hosts: Vec<_> = target
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .chain(target.get_hostaddrs().iter().map(ToString::to_string))
        .collect();
    let ports: Vec<_> = target.get_ports().iter().map(ToString::to_string).collect();
    let port = if ports.is_empty() { String::new() } else { format!(" port {}", ports.join(",")) };
    format!("{}{port}, database {}", hosts.join(","), target.get_dbname().unwrap_or("(the user's name)"))
}

/// The statement that allows a role to connect.
pub(super) fn grant(target: &tokio_postgres::Config) -> String {
    let quoted = |name: Option<&str>| format!("\"{}\"", name.unwrap_or_default().replace('"', "\"\""));
    let (user, database) = (target.get_user(), target.get_dbname());
    format!("GRANT CONNECT ON DATABASE {} TO {}", quoted(database.or(user)), quoted(user))
}
