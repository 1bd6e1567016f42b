-- Who found nothing waits, and is told by a message on its own topic. `waiting` has for each session and group how many
-- messages it may be handed without asking, below which priority, and its consumer.

local function wait_here(base, session, group, credit, below, consumer)
  redis.call('HSET', base .. ':waiting', session .. '\n' .. group,
    string.format('%d %d ', credit, below) .. consumer)
end

local function waiting_of(base, group)
  local found, flat = {}, redis.call('HGETALL', base .. ':waiting')
  for i = 1, #flat, 2 do
    local session, its = string.match(flat[i], '^([^\n]*)\n(.*)$')
    if group == nil or group == its then
      local credit, below, consumer = string.match(flat[i + 1], '^(%d+) (%d+) (.*)$')
      found[#found + 1] = {
        field = flat[i], session = session, group = its, credit = tonumber(credit), below = tonumber(below), consumer = consumer,
      }
    end
  end
  return found
end

local MOST_BYTES = 262144 -- of what is told: a server drops listeners that have too much to read

-- As the protocol would write it.
local function encode(out, value)
  if type(value) == 'table' then
    out[#out + 1] = '*' .. #value .. '\r\n'
    for _, each in ipairs(value) do
      encode(out, each)
    end
  elseif type(value) == 'number' then
    out[#out + 1] = string.format(':%d\r\n', value)
  else
    out[#out + 1] = '$' .. #value .. '\r\n' .. value .. '\r\n'
  end
end

-- Whether somebody heard it: in a cluster only this node's listeners are counted.
local function tell(prefix, session, message)
  return redis.call('PUBLISH', prefix .. ':bell:' .. session, message) > 0 or CLUSTER
end

-- Have up to `n` of each group's waiting sessions look for themselves; with a `group`, only that one's.
local function ring(prefix, base, n, group)
  local told = {}
  for _, who in ipairs(waiting_of(base, group)) do
    if (told[who.group] or 0) < n then
      redis.call('HDEL', base .. ':waiting', who.field)
      if tell(prefix, who.session, 'ready\n' .. base .. '\n' .. who.group) then
        told[who.group] = (told[who.group] or 0) + 1
      end
    end
  end
end

-- Some of what a consumer had is another's: its settlements are looked at one by one, and it is given nothing more.
local function fence(base, group, consumer, reason)
  redis.call('HSET', base .. ':taken', group .. '\n' .. consumer, reason)
  redis.call('PEXPIRE', base .. ':taken', 7 * 86400 * 1000)
  redis.call('HSET', base .. ':meta', 'taken', 1) -- there is something to look up
end

-- Leases were taken from a consumer of a session: it is not to believe that it has them.
local function take_from(prefix, base, group, consumer, reason)
  fence(base, group, consumer, reason)
  local session = string.match(consumer, '^(.*)%.%d+$') or consumer
  redis.call('PUBLISH', prefix .. ':bell:' .. session, 'taken\n' .. base .. '\n' .. group)
end
