-- Store and settle, all of it in one step.
-- ARGV: clock, prefix, default window, a key for the answer of what is not to be done twice or '', number of publishing blocks, then for each
--     base, number of messages, and for each message what `publish` reads (an inbox: base begins with '@')
--   number of settling blocks, then for each
--     base, group, consumer, 1 for a repetition, number of settlements, and for each: outcome (A N R T, L: the lease is known to be lost), priority, id, key or '',
--     1 if it has a key, delay, 1 to let its key pass, 1 if it has tries, index of the publish it comes after or 0
-- Answers {'ok', statuses of publishes, of settlements, {incarnation, mark before, mark} of each block} or {'no channel', base…}.

local function commit_main(ARGV)
  local now, prefix, window = now_ms(ARGV[1]), ARGV[2], tonumber(ARGV[3])
  local name = ARGV[4]
  local before = name ~= '' and redis.call('GET', name)
  if before then
    redis.call('PEXPIRE', name, 120000) -- a write, as for duplicates
    return cmsgpack.unpack(before)
  end
  local channels, missing = {}, {}

  local function channel(base)
    if channels[base] == nil then
      channels[base] = open_channel(base) or false
      if not channels[base] then
        missing[#missing + 1] = base
      end
    end
    return channels[base]
  end

  -- First everything is looked at: nothing is stored while a channel is not known.
  local at, ids = 6, {}
  for block = 1, tonumber(ARGV[5]) do
    local base, count = ARGV[at], tonumber(ARGV[at + 1])
    if string.sub(base, 1, 1) ~= '@' then
      channel(base)
    end
    at = at + 2
    ids[block] = {}
    for i = 1, count do
      ids[block][i] = ARGV[at + 1]
      at = at + 5 + tonumber(ARGV[at + 4])
    end
  end
  if #missing > 0 then
    return {'no channel', unpack(missing)}
  end

  local published, settled, marks = {}, {}, {}

  at = 6
  for block = 1, tonumber(ARGV[5]) do
    local base, count = ARGV[at], tonumber(ARGV[at + 1])
    at = at + 2
    if string.sub(base, 1, 1) == '@' then
      for _ = 1, count do
        published[#published + 1], at = reply(prefix, string.sub(base, 2), ARGV, at)
      end
    else
      local c = channel(base)
      local w = window_of(c, now, window)
      enter_window(c, w)
      local known, stored, again = known_of(w, ids[block], now), {}, 0
      for _ = 1, count do
        published[#published + 1], at = publish(c, known, stored, now, ARGV, at)
        again = again + (published[#published] == DUPLICATE and 1 or 0)
      end
      remember(w, stored)
      if again > 0 then -- WAIT waits for what its own connection has written: without this for nothing, on a new one
        redis.call('HINCRBY', base .. ':meta', 'duplicates', again)
      end
      marks[#marks + 1] = base
    end
  end

  local pushes = {}
  local blocks = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, blocks do
    local base, group, consumer, repeated = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3] == '1'
    local count = tonumber(ARGV[at + 4])
    at = at + 5
    local c = channel(base)
    local g = open_group(base, group)
    local there = c and c.sessions[group]
    local taken = c and is_fenced(c, group, consumer)
    local acks, done, lost, again = {}, {}, 0, false
    for _ = 1, count do
      local outcome, prio, id, key = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 4] == '1' and ARGV[at + 3] or nil
      local place = ARGV[at + 1] .. ':' .. id
      local delay, pass, tried, after = tonumber(ARGV[at + 5]), ARGV[at + 6] == '1', ARGV[at + 7] == '1', tonumber(ARGV[at + 8])
      at = at + 9
      local verdict
      if after > 0 and published[after] ~= STORED and published[after] ~= DUPLICATE then
        verdict = SKIPPED
      elseif not there or outcome == 'L' or done[place] then
        verdict = LOST
      elseif outcome == 'A' then
        acks[prio] = acks[prio] or {ids = {}, places = {}}
        local these = acks[prio]
        these.ids[#these.ids + 1] = id
        these.places[#these.places + 1] = #settled + 1
        these[#these.ids] = {key = key, tried = tried}
        verdict = SETTLED
      else
        verdict = settle(c, g, consumer, prio, id, outcome, key, delay, pass, now)
        if verdict == LOST and repeated and not taken then
          verdict = SETTLED -- by the first try, whose answer was lost
        end
        again = again or verdict == SETTLED and outcome ~= 'T'
      end
      if verdict == SETTLED and outcome ~= 'T' then
        done[place] = true
      end
      settled[#settled + 1] = verdict
    end
    for prio, these in pairs(acks) do
      local verdicts = ack(c, g, consumer, prio, these.ids, taken)
      for i, id in ipairs(these.ids) do
        if verdicts[i] then
          settled[these.places[i]] = verdicts[i]
        end
        if verdicts[i] ~= LOST then
          local item = (these[i].key or these[i].tried) and item_of(prio, id)
          if these[i].tried then
            redis.call('HDEL', g.tries, item)
          end
          if these[i].key then
            free_key(g, these[i].key, item)
            again = true
          end
        end
      end
    end
    for i = #settled - count + 1, #settled do
      lost = lost + (settled[i] == LOST and 1 or 0)
    end
    if lost > 0 and c then
      redis.call('HINCRBY', base .. ':meta', 'rejected', lost)
    end
    if again then
      pushes[#pushes + 1] = {c, group}
    end
  end

  for base, c in pairs(channels) do
    if c then
      save_last(c)
      if c.kept or (c.added and c.retains) then
        trim(c, now, 1000)
      end
      if c.added then
        push(prefix, c, now, c.added)
      end
    end
  end

  for _, each in ipairs(pushes) do
    if not each[1].added then
      push(prefix, each[1], now, 1, each[2])
    end
  end

  local told = {}
  for i, base in ipairs(marks) do
    told[i] = {channels[base].incarnation, channels[base].before, mark(channels[base])}
  end
  local answer = {'ok', published, settled, told}
  if name ~= '' then
    redis.call('SET', name, cmsgpack.pack(answer), 'PX', 120000)
  end
  return answer
end
