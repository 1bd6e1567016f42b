-- Who found nothing waits, and is told by a message on its own topic. `waiting` has for each session and group how many
-- messages it may be handed without asking (-1: it was told to look, and waits no more), below which priority, how often
-- its consumer was handed something, and that consumer. Answers to fetches and what is handed out unasked come on two
-- connections: the client puts them in order by that number.

local function wait_here(base, session, group, credit, below, turn, consumer)
  redis.call('HSET', base .. ':waiting', session .. '\n' .. group,
    string.format('%d %d %d ', credit, below, turn) .. consumer)
end

local function note(base, field, text)
  local session, group = string.match(field, '^([^\n]*)\n(.*)$')
  local credit, below, turn, consumer = string.match(text, '^(%-?%d+) (%d+) (%d+) (.*)$')
  return {
    field = field, base = base, session = session, group = group, credit = tonumber(credit), below = tonumber(below),
    turn = tonumber(turn), consumer = consumer,
  }
end

local function waiting_of(base, group)
  local found, flat = {}, redis.call('HGETALL', base .. ':waiting')
  for i = 1, #flat, 2 do
    local who = note(base, flat[i], flat[i + 1])
    if who.credit >= 0 and (group == nil or group == who.group) then
      found[#found + 1] = who
    end
  end
  return found
end

-- How often a consumer was handed something: `known`, unless something was handed to it unasked since it was answered.
local function turn_of(base, session, group, consumer, known)
  local field = session .. '\n' .. group
  local text = redis.call('HGET', base .. ':waiting', field)
  local who = text and note(base, field, text)
  return who and who.consumer == consumer and who.turn or known
end

-- It waits no more. Its number must not be forgotten: some of what it was handed may still be on its way.
local function rest(who)
  who.credit = -1
  wait_here(who.base, who.session, who.group, -1, who.below, who.turn, who.consumer)
end

local MOST_BYTES = 262144 -- of what is told: a server drops listeners that have too much to read

-- Lengths as the protocol writes them: making the text of a number is what costs most.
local LENGTHS = {}

local function length(n)
  local text = LENGTHS[n]
  if not text then
    text = '$' .. n .. '\r\n'
    if n < 4096 then
      LENGTHS[n] = text
    end
  end
  return text
end

-- As the protocol would write it: adds to the pieces, of which there are `n`, and answers how many there are then.
local function encode(pieces, n, value)
  local kind = type(value)
  if kind == 'string' then
    pieces[n + 1], pieces[n + 2], pieces[n + 3] = length(#value), value, '\r\n'
    return n + 3
  elseif kind == 'number' then
    pieces[n + 1] = string.format(':%d\r\n', value)
    return n + 1
  end
  pieces[n + 1] = string.format('*%d\r\n', #value)
  n = n + 1
  for i = 1, #value do
    n = encode(pieces, n, value[i])
  end
  return n
end

-- Whether somebody heard it: in a cluster only this node's listeners are counted.
local function tell(prefix, session, message)
  return redis.call('PUBLISH', prefix .. ':bell:' .. session, message) > 0 or CLUSTER
end

-- Have it look for itself; whether it heard that.
local function wake(prefix, who)
  rest(who)
  return tell(prefix, who.session, 'ready\n' .. who.base .. '\n' .. who.group)
end

-- Have up to `n` of each group's waiting sessions look for themselves; with a `group`, only that one's.
local function ring(prefix, base, n, group)
  local told = {}
  for _, who in ipairs(waiting_of(base, group)) do
    if (told[who.group] or 0) < n and wake(prefix, who) then
      told[who.group] = (told[who.group] or 0) + 1
    end
  end
end

-- Some of what a consumer had is another's: its settlements are looked at one by one, and it is given nothing more. Whoever
-- was stopped for longer than that is a client that ended long ago: its settlements change nothing.
local FENCED = 7 * 86400 * 1000

local function fence_of(base, group, consumer)
  return base .. ':taken:' .. group .. '\n' .. consumer
end

local function fence(base, group, consumer, reason)
  redis.call('SET', fence_of(base, group, consumer), reason, 'PX', FENCED)
  redis.call('HSET', base .. ':meta', 'taken', 1) -- there is something to look up
end

local function is_fenced(c, group, consumer)
  return c.taken and redis.call('EXISTS', fence_of(c.base, group, consumer)) == 1
end

-- Leases were taken from a consumer of a session: it is not to believe that it has them.
local function take_from(prefix, base, group, consumer, reason)
  fence(base, group, consumer, reason)
  local session = string.match(consumer, '^(.*)%.%d+$') or consumer
  redis.call('PUBLISH', prefix .. ':bell:' .. session, 'taken\n' .. base .. '\n' .. group)
end
