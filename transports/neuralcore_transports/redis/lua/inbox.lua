-- Replies: told where somebody listens, kept for a while where he is only expected back, dropped where nobody waits.

local INBOX_CAPACITY = 10000

-- One reply to the inbox with this base; parameters as a message's. Its status, and where the next one begins.
local function reply(prefix, base, args, at)
  local last = at + 4 + tonumber(args[at + 4])
  local owner = redis.call('GET', base .. ':open')
  if not owner then
    return DROPPED, last + 1
  end
  local message = {}
  encode(message, #message, {base, tonumber(args[at]), {unpack(args, at + 5, last)}})
  local text = table.concat(message)
  if not CLUSTER and #text <= MOST_BYTES and redis.call('EXISTS', base .. ':replies') == 0
    and tell(prefix, owner, 'answer\n' .. text) then
    return STORED, last + 1
  end
  if redis.call('LLEN', base .. ':replies') >= INBOX_CAPACITY then
    return DROPPED, last + 1
  end
  redis.call('RPUSH', base .. ':replies', text)
  redis.call('PEXPIRE', base .. ':replies', redis.call('PTTL', base .. ':open'))
  tell(prefix, owner, 'reply\n' .. base)
  return STORED, last + 1
end
