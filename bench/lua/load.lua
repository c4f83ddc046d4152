-- wrk's script for every closed-loop scenario: sends the requests of a file one after the other and ends with one line
-- of JSON. usage: wrk ... -s load.lua URL -- REQUESTS_FILE
-- The file holds whole requests, each after a line with its length in bytes.
local requests = {}
local count, turn = 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local size = file:read("*n")
    if not size then break end
    file:read(1)
    count = count + 1
    requests[count] = file:read(size)
  end
  file:close()
  if count == 1 then
    local only = requests[1]
    request = function() return only end
  else
    request = function()
      turn = turn % count + 1
      return requests[turn]
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nresult {"requests": %d, "seconds": %.6f, "bytes": %d, "connect": %d, "read": %d, "write": %d, "status": %d, '
      .. '"timeout": %d, "p50": %d, "p90": %d, "p99": %d, "p999": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, errors.connect, errors.read, errors.write, errors.status,
    errors.timeout, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
