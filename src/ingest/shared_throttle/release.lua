-- Takes an entry of take.lua out again. KEYS: its key. ARGV: its name (spool:seq).
local entries, kept = redis.call('GET', KEYS[1]), {}
if not entries then return '' end
for at, name in string.gmatch(entries, '(%-?%d+) ([^;]+)') do
  if name ~= ARGV[1] then kept[#kept + 1] = at .. ' ' .. name end
end
if #kept == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], table.concat(kept, ';'), 'KEEPTTL')
end
return ''
