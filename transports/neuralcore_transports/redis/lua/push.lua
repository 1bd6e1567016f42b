-- What is stored is handed out at once to those who wait for it, with its lease, on their topics.

local MOST_PUSHED = 50
local MOST_AT_ONCE = 100 -- who are handed something in one step: a thousand broadcasts would hold up everybody else

local function take_back_all(c, g, found)
  for _, entry in ipairs(found) do
    local prio, id, fields = entry[1], entry[2], entry[5]
    local _, _, _, place = tries_of(g, item_of(prio, id))
    set_waiting(c.base, g.name, prio, {id})
    give_back(g, prio, id, key_of(fields), place)
  end
end

-- How many it was handed, and whether there may be more.
local function push_to(prefix, c, g, who, now)
  if is_fenced(c, who.group, who.consumer) then
    wake(prefix, who)
    return 0, true
  end
  local found, more, lost, due = fetch(c, g, who.consumer, now, math.min(who.credit, MOST_PUSHED), who.below)
  if #found == 0 then
    if more then -- what it would be handed lies behind much that waits
      wake(prefix, who)
    end
    return 0, more
  end
  local pieces = {'given\n'}
  encode(pieces, 1, {c.base, who.group, who.consumer, who.turn + 1, due, lost, found})
  local message = table.concat(pieces)
  if #message > MOST_BYTES then
    take_back_all(c, g, found)
    wake(prefix, who)
    return 0, false
  end
  if not tell(prefix, who.session, message) then
    take_back_all(c, g, found)
    rest(who)
    return 0, true
  end
  who.turn = who.turn + 1
  who.credit = who.credit - #found
  if who.credit == 0 and more then
    wake(prefix, who)
  else
    wait_here(c.base, who.session, who.group, who.credit, who.below, who.turn, who.consumer)
  end
  return #found, more
end

-- `n` more may be ready. With a `group`, only for that one.
local function push(prefix, c, now, n, group)
  local waiting = waiting_of(c.base, group)
  if #waiting == 0 then
    return
  end
  if CLUSTER then -- there every server would pass the messages on to every other
    ring(prefix, c.base, n, group)
    return
  end
  -- They come first in turn: who has the most room may have it because it is given everything, and time or the number of
  -- messages may move on in steps that leave somebody out.
  local over, first = {}, c.pushes % #waiting
  for i = 1, #waiting do
    local who = waiting[(first + i) % #waiting + 1]
    if not c.sessions[who.group] then -- somebody has removed it
      redis.call('HDEL', c.base .. ':waiting', who.field)
    elseif not over[who.group] then
      if who.credit == 0 or i > MOST_AT_ONCE then
        over[who.group] = wake(prefix, who)
      end
      local g = who.credit > 0 and open_group(c.base, who.group)
      while who.credit > 0 do
        local given, more = push_to(prefix, c, g, who, now)
        over[who.group] = not more and who.below > 255
        if given == 0 or not more then
          break
        end
      end
    end
  end
end
