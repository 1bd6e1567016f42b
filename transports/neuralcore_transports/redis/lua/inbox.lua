-- Replies: kept for a while where somebody waits for them, dropped where nobody does.

local INBOX_CAPACITY = 10000

-- One reply to the inbox with this base; parameters as a message's. Its status, and where the next one begins.
local function reply(prefix, base, args, at)
  local last = at + 4 + tonumber(args[at + 4])
  local owner = redis.call('GET', base .. ':open')
  if not owner or redis.call('LLEN', base .. ':replies') >= INBOX_CAPACITY then
    return DROPPED, last + 1
  end
  local texts = {#args[at] .. ':' .. args[at]}
  for i = at + 5, last do
    texts[#texts + 1] = #args[i] .. ':' .. args[i]
  end
  redis.call('RPUSH', base .. ':replies', table.concat(texts))
  redis.call('PEXPIRE', base .. ':replies', redis.call('PTTL', base .. ':open'))
  redis.call('PUBLISH', prefix .. ':bell:' .. owner, 'reply\n' .. base)
  return STORED, last + 1
end
