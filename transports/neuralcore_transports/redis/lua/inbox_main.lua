-- ARGV: what, base, session, milliseconds that it lasts
local function inbox_main(ARGV)
  local what, base = ARGV[1], ARGV[2]
  if what == 'open' then
    redis.call('SET', base .. ':open', ARGV[3], 'PX', ARGV[4])
    return 1
  elseif what == 'keep' then
    redis.call('PEXPIRE', base .. ':replies', ARGV[4])
    return redis.call('PEXPIRE', base .. ':open', ARGV[4])
  elseif what == 'take' then
    local replies = redis.call('LRANGE', base .. ':replies', 0, -1)
    redis.call('UNLINK', base .. ':replies')
    return {redis.call('EXISTS', base .. ':open'), replies}
  end
  redis.call('UNLINK', base .. ':open', base .. ':replies')
  return 1
end
