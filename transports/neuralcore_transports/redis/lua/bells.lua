-- Who found nothing waits, and is told by a message on its own topic.

-- Wake up to `n` of each group's waiting sessions; with a `group`, only that one's.
local function ring(prefix, base, n, group)
  local waiting = redis.call('SMEMBERS', base .. ':waiting')
  if #waiting == 0 then
    return
  end
  local told = {}
  for _, who in ipairs(waiting) do
    local session, its = string.match(who, '^([^\n]*)\n(.*)$')
    if (group == nil or group == its) and (told[its] or 0) < n then
      redis.call('SREM', base .. ':waiting', who)
      local heard = redis.call('PUBLISH', prefix .. ':bell:' .. session, 'ready\n' .. base .. '\n' .. its)
      if heard > 0 or CLUSTER then -- in a cluster only this node's listeners are counted
        told[its] = (told[its] or 0) + 1
      end
    end
  end
end

-- Leases were taken from a consumer of a session: it is not to believe that it has them.
local function take_from(prefix, base, group, consumer, reason)
  redis.call('HSET', base .. ':taken', group .. '\n' .. consumer, reason)
  redis.call('PEXPIRE', base .. ':taken', 7 * 86400 * 1000)
  local session = string.match(consumer, '^(.*)%.%d+$') or consumer
  redis.call('PUBLISH', prefix .. ':bell:' .. session, 'taken\n' .. base .. '\n' .. group)
end
