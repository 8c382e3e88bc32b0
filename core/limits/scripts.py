"""The scripts that count budgets in Redis.

One hash has the fields of all budgets of the fleet. It never expires, so an eviction deletes all of
it with its marks, and no budget alone:

- `` (the empty name): the mark. The time at which budgets were lost, or 0.
- `@log`: the time at which the first process that keeps logs used this hash, or 0, as `at 0`. The
  version before would delete a number that is in the past.
- `@data`: the id of the data in which the budgets were counted; see `COMPARE_DATA`.
- `log/<name>`: the log of a budget, packed. First come limit, span, owed units, the tat of the
  version before as this version left it, and the time of the latest use. Then come the units that
  tasks took so far, and the number of reservations. Each reservation has a cost, the time of the
  first refusal, the time to which others may delay it, and the time of its end. Each entry has a
  time and units.
- `<name>`: the tat of a budget, written by workers of the version before.

All times are in microseconds, by the clock of Redis.
"""

from __future__ import annotations

READ_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

MAX_RESERVATIONS = 8
"""The number of reservations of a budget. A further refused cost waits without one."""

_LOG = (
    f"local max_reservations = {MAX_RESERVATIONS}\n"
    + READ_CLOCK
    + """
-- Adds units to the log. Entries of the same slot become one, with the time of the latest.
local function add(b, at, units)
    if units <= 0 then return end
    local latest = b.last >= b.first and b.at[b.last]
    if latest and math.floor(latest / b.slot) >= math.floor(at / b.slot) then
        b.units[b.last] = b.units[b.last] + units
        if at > latest then b.at[b.last] = at end
    else
        b.last = b.last + 1
        b.at[b.last], b.units[b.last] = at, units
    end
    b.sum = b.sum + units
end

-- Spends units at a time. Units for which there is no room are owed.
local function spend(b, at, units)
    local paid = math.max(math.min(units, b.limit - b.sum), 0)
    add(b, at, paid)
    b.owed = b.owed + units - paid
end

-- Removes the entries whose span has passed. The units that each leaves pay what is owed.
local function settle(b, now)
    if b.last >= b.first and b.at[b.last] > now then
        -- The clock of Redis was set back: count these units from now.
        for i = b.first, b.last do b.at[i] = math.min(b.at[i], now) end
    end
    if b.owed > 0 and b.sum >= b.limit then
        -- All units pay what is owed, once in each span. Skip the spans in which nobody looked.
        local spans = math.min(math.floor((now - b.at[b.first]) / b.span) - 1,
            math.floor(b.owed / b.limit))
        if spans > 0 then
            b.owed = b.owed - spans * b.limit
            for i = b.first, b.last do b.at[i] = b.at[i] + spans * b.span end
        end
    end
    while b.first <= b.last and b.at[b.first] + b.span <= now do
        local free = b.at[b.first] + b.span
        b.sum = b.sum - b.units[b.first]
        b.first = b.first + 1
        local owed = b.owed
        b.owed = 0
        spend(b, free, owed)
    end
    if b.owed > 0 and b.sum < b.limit then
        local owed = b.owed
        b.owed = 0
        spend(b, now, owed)
    end
end

-- Reads a budget, and settles it.
local function open(name, old, mark, began, limit, span, slot, interval)
    local b = {name = name, limit = limit, span = span, slot = slot, sum = 0, owed = 0, tat = 0,
        used = 0, taken = 0, first = 1, last = 0, at = {}, units = {}, reserved = {}}
    local fields = redis.call('HMGET', KEYS[1], 'log/' .. name, name)
    if fields[1] then
        local log = cmsgpack.unpack(fields[1])
        b.owed, b.tat, b.used, b.taken = log[3], log[4], math.min(log[5], now), log[6]
        local from = 8 + 4 * log[7]
        for i = 8, from - 1, 4 do
            if log[i + 3] > now then
                b.reserved[#b.reserved + 1] = {log[i], log[i + 1], log[i + 2], log[i + 3]}
            end
        end
        local at, units, last, sum = b.at, b.units, 0, 0
        for i = from, #log, 2 do
            last = last + 1
            at[last], units[last] = log[i], log[i + 1]
            sum = sum + units[last]
        end
        b.last, b.sum = last, sum
    end
    -- Units that workers of the version before took, during a rolling upgrade.
    local theirs = math.max(tonumber(fields[2]) or 0, tonumber(redis.call('GET', old)) or 0)
    mark = math.min(tonumber(mark) or 0, now)
    if fields[1] then
        if mark > b.used then
            -- The server may have lost all that was taken since. The rest of the limit is spent.
            settle(b, mark)
            spend(b, mark, math.max(limit - b.sum, 0))
        end
        settle(b, now)
        local since = math.max(b.tat, b.used)
        if theirs > b.tat and theirs > since then
            spend(b, now, math.ceil((theirs - since) / interval))
        end
    else
        local lost = math.max(mark, tonumber(string.match(began or '', '%d+')) or 0)
        if theirs > now then
            spend(b, now, math.max(limit, math.ceil((theirs - now) / interval)))
        elseif math.max(lost, theirs) > 0 then
            spend(b, math.min(math.max(lost, theirs), now), limit)
        end
        settle(b, now)
    end
    b.tat = math.max(theirs, b.tat)
    return b
end

-- Returns the time until units fit. A task that costs more than the limit needs all of it.
local function until_room(b, units)
    local need = b.owed + math.min(units, b.limit) + b.sum - b.limit
    if need <= 0 then return 0 end
    local spans = math.ceil(need / b.sum)
    need = need - (spans - 1) * b.sum
    for i = b.first, b.last do
        need = need - b.units[i]
        if need <= 0 then return b.at[i] + spans * b.span - now end
    end
    return b.at[b.last] + spans * b.span - now
end

-- Returns the oldest reservation: the cost that has waited longest.
local function reservation(b)
    local oldest
    for _, one in ipairs(b.reserved) do
        if not oldest or one[2] < oldest[2] then oldest = one end
    end
    return oldest
end

-- Returns the units that tasks of other costs may take now, and not delay the reserved task further
-- than its reservation says.
local function room_beside(b, reserved)
    local moment = math.max(now + until_room(b, reserved[1]), reserved[3])
    if now + b.span <= moment then return b.limit end
    local counted = 0
    for i = b.first, b.last do
        if b.at[i] + b.span > moment then counted = counted + b.units[i] end
    end
    return math.max(b.limit - counted - reserved[1], 0)
end
"""
)

TAKE_UNITS = (
    _LOG
    + """
-- KEYS: the hash, then the key of each budget in the version before.
-- ARGV: take (1), force (2) or reserve (3); then for each budget: name, units of the limit, span,
--   slot, hold, slack, interval and tolerance of the version before, units.
-- Returns {-1, 0, 0} if the mark is missing. Otherwise {wait, number of the budget that requires
--   the longest wait, the time until it has a unit for any task}.
local marks = redis.call('HMGET', KEYS[1], '', '@log')
if not marks[1] then return {-1, 0, 0} end
if not marks[2] then
    marks[2] = string.format('at %.0f', now)
    redis.call('HSET', KEYS[1], '@log', marks[2])
end
local wait, which, blocked = 0, 0, 0
local budgets = {}
for i = 2, #KEYS do
    local at = 2 + (i - 2) * 9
    local b = open(ARGV[at], KEYS[i], marks[1], marks[2], tonumber(ARGV[at + 1]),
        tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 6]))
    b.hold, b.slack = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    b.interval, b.tolerance = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
    b.asked = tonumber(ARGV[at + 8])
    b.cost = math.min(b.asked, b.limit)
    budgets[i] = b
    b.wait = until_room(b, b.cost)
    local reserved = reservation(b)
    if b.wait == 0 and reserved and reserved[1] ~= b.cost
        and room_beside(b, reserved) < b.cost then
        local rest = reserved[4] - now
        b.wait = until_room(b, reserved[1] + b.cost)
        if b.wait == 0 or b.wait > rest then b.wait = rest end
    end
    if b.wait > wait then wait, which, blocked = b.wait, i - 1, until_room(b, 1) end
end
local granted = ARGV[1] == '2' or (ARGV[1] == '1' and wait == 0)
for i = 2, #KEYS do
    local b = budgets[i]
    local mine
    for n, one in ipairs(b.reserved) do
        if one[1] == b.cost then mine = n end
    end
    if granted then
        spend(b, now, b.asked)
        if ARGV[1] == '1' then b.taken = b.taken + b.asked end
        if mine and ARGV[1] == '1' then
            -- Its turn is over. What it took may delay the other reservations.
            table.remove(b.reserved, mine)
            for _, one in ipairs(b.reserved) do
                one[3] = math.max(one[3], now + until_room(b, one[1]) + b.slack)
            end
        end
        -- Workers of the version before wait until these units are out of the window.
        local room = now + b.tolerance + b.span * (1 + b.owed / b.limit)
        local tat = math.min(math.max(b.tat, now) + b.asked * b.interval, room)
        b.tat = math.ceil(math.max(b.tat, tat))
        redis.call('SET', KEYS[i], string.format('%.0f', b.tat), 'PX',
            math.ceil((b.tat - now) / 1000) + 1000)
    elseif b.wait > 0 then
        if not mine and #b.reserved < max_reservations then
            mine = #b.reserved + 1
            b.reserved[mine] = {b.cost, now, now + b.wait + b.slack, 0}
        end
        if mine then
            local one = b.reserved[mine]
            one[4] = math.max(now + b.wait, one[3]) + b.hold
        end
    end
    if granted or b.wait > 0 then
        local log = {b.limit, b.span, b.owed, b.tat, now, b.taken, #b.reserved}
        for _, one in ipairs(b.reserved) do
            for n = 1, 4 do log[#log + 1] = one[n] end
        end
        local size, at, units = #log, b.at, b.units
        for n = b.first, b.last do
            log[size + 1], log[size + 2] = at[n], units[n]
            size = size + 2
        end
        redis.call('HSET', KEYS[1], 'log/' .. b.name, cmsgpack.pack(log))
    end
end
return {math.ceil(wait), which, math.ceil(blocked)}
"""
)

UNITS_LEFT = (
    _LOG
    + """
-- KEYS: the hash, then the key of each budget in the version before.
-- ARGV: name, units of the limit, span, slot, and interval of the version before of each budget.
-- Returns for each budget: the units left, the cost of the task that has waited longest (0 if none
--   waits), the units left for tasks of other costs, the time until more units are left, and the
--   units that tasks took so far.
local marks = redis.call('HMGET', KEYS[1], '', '@log')
local left = {}
for i = 2, #KEYS do
    local at = 1 + (i - 2) * 5
    local b = open(ARGV[at], KEYS[i], marks[1], marks[2], tonumber(ARGV[at + 1]),
        tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]))
    local units = b.owed > 0 and 0 or math.max(b.limit - b.sum, 0)
    local reserved = reservation(b)
    local more = 0
    if b.owed > 0 then
        more = until_room(b, 1)
    elseif b.first <= b.last then
        more = b.at[b.first] + b.span - now
    end
    left[#left + 1] = units
    left[#left + 1] = reserved and reserved[1] or 0
    left[#left + 1] = reserved and math.min(units, room_beside(b, reserved)) or units
    left[#left + 1] = math.ceil(more)
    left[#left + 1] = b.taken
end
return left
"""
)

DELETE_FULL = (
    READ_CLOCK
    + """
-- KEYS: the hash. ARGV: names of fields. Deletes those of budgets that are full again.
for _, name in ipairs(ARGV) do
    local value = redis.call('HGET', KEYS[1], name)
    local full
    if value and string.sub(name, 1, 4) == 'log/' then
        local log = cmsgpack.unpack(value)
        full = log[5] + log[2] * (2 + log[3] / log[1]) <= now
    elseif name ~= '' and string.sub(name, 1, 1) ~= '@' then
        local tat = tonumber(value)
        full = tat and tat <= now
    end
    if full then redis.call('HDEL', KEYS[1], name) end
end
"""
)

COMPARE_DATA = (
    READ_CLOCK
    + """
-- KEYS: the hash. Sets the mark to now, if the server has other data than the one that counted.
local info = redis.call('INFO', 'replication')
local id = string.match(info, 'master_replid:(%w+)')
if not id or string.find(info, 'role:slave') then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local known = redis.call('HGET', KEYS[1], '@data')
if known == id then return 0 end
if known then redis.call('HSET', KEYS[1], '', string.format('%.0f', now)) end
redis.call('HSET', KEYS[1], '@data', id)
return 1
"""
)
