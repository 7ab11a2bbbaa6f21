#!/usr/bin/env bash
# Three popular bot lists call the mail programs that people read with bots, each by another rule.
#
# Expected: a list that is made to keep crawlers out of statistics lets a person's Outlook, Apple Mail or Evolution through.
# Seen: isbot calls each agent a bot that has no second product behind the first, so `Outlook-iOS/2.0` is one and an older
# `Outlook-iOS/709…` is not; CrawlerDetect, in its PHP list's two ports, names Outlook and Apple Mail as crawlers.
# Whom it bites: open trackers that drop what such a list calls a bot lose most opens of Outlook for Windows, silently.
# Exits 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

printf '%s\n' \
    'Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)' \
    'Outlook-iOS/2.0' \
    'Outlook-iOS/709.2042344.prod.iphone (3.21.0)' \
    'Mail/3731.600.7 CFNetwork/1408.0.4 Darwin/22.5.0' \
    'eMClient/9.3.6041.0' \
    'Evolution/3.46.4' \
    'Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Thunderbird/153.8.0' > agents

npm init --yes > /dev/null
npm install --silent --no-audit --no-fund isbot@5.2.3 es6-crawler-detect@4.0.2
python3 -m venv python
python/bin/pip --quiet install crawlerdetect==0.4.2

cat > ask.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isbot } from 'isbot';
const { Crawler } = createRequire(import.meta.url)('es6-crawler-detect');
for (const agent of readFileSync('agents', 'utf8').trim().split('\n')) {
  const crawler = new Crawler(undefined, {}, agent).isCrawler(agent);
  console.log([isbot(agent), crawler, agent].join('\t'));
}
JS
node ask.mjs > from-npm
python/bin/python - > from-pypi <<'PY'
from crawlerdetect import CrawlerDetect
detect = CrawlerDetect()
for agent in open("agents").read().strip().split("\n"):
    print("true" if detect.isCrawler(agent) else "false")
PY

echo "isbot 5.2.3, es6-crawler-detect 4.0.2 (npm), crawlerdetect 0.4.2 (PyPI): is it a bot?"
paste from-npm from-pypi | awk -F'\t' '{ printf "%-6s %-6s %-6s %s\n", $1, $2, $4, $3 }' | tee seen

diff - seen <<'EXPECTED'
false  true   true   Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)
true   true   true   Outlook-iOS/2.0
false  true   true   Outlook-iOS/709.2042344.prod.iphone (3.21.0)
false  true   true   Mail/3731.600.7 CFNetwork/1408.0.4 Darwin/22.5.0
true   false  false  eMClient/9.3.6041.0
true   false  false  Evolution/3.46.4
false  false  false  Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Thunderbird/153.8.0
EXPECTED
echo "as expected: each of six agents of mail programs is a bot for at least one of them"
