-- Takes tokens, one a key, in their order. KEYS: of each hit the fingerprint's key. ARGV: the window in microseconds,
-- the expiry in milliseconds, the most entries of a key; then of each hit its time and its name (spool:seq).
-- Returns a letter a hit: 1 where its token is taken, by it and nobody else; 0 where another one is near.
--
-- A key holds entries, with semicolons between: time, a blank, name. It is written only here and in release.lua.
local window, expiry, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

-- One command for many keys: a call each would take half of the time. Lua's stack bounds how many.
local held = {}
for from = 1, #KEYS, 4096 do
  local to = math.min(from + 4095, #KEYS)
  local found = redis.call('MGET', unpack(KEYS, from, to))
  for n = from, to do
    held[KEYS[n]] = found[n - from + 1]
  end
end

-- All entries but the earliest.
local function without_earliest(entries)
  local earliest, kept = nil, {}
  for at in string.gmatch(entries, '(%-?%d+) ') do
    if not earliest or tonumber(at) < tonumber(earliest) then earliest = at end
  end
  for at, name in string.gmatch(entries, '(%-?%d+) ([^;]+)') do
    if at == earliest then earliest = nil else kept[#kept + 1] = at .. ' ' .. name end
  end
  return table.concat(kept, ';')
end

local answers = {}
for n = 1, #KEYS do
  local key, at, name = KEYS[n], ARGV[2 * n + 2], ARGV[2 * n + 3]
  local entries, is_own, is_near, count = held[key], false, false, 0
  if entries then
    for was_at, was_name in string.gmatch(entries, '(%-?%d+) ([^;]+)') do
      is_own = is_own or was_name == name
      is_near = is_near or math.abs(tonumber(was_at) - tonumber(at)) < window
      count = count + 1
    end
  end
  if is_own then
    answers[n] = '1'
  elseif is_near then
    answers[n] = '0'
  else
    answers[n] = '1'
    if count >= most then entries = without_earliest(entries) end
    local entry = at .. ' ' .. name
    held[key] = count > 0 and entries .. ';' .. entry or entry
    redis.call('SET', key, held[key], 'PX', expiry)
  end
end
return table.concat(answers)
