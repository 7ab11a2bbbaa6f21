-- wrk: a pixel of its own for each request, from a client address of its own.
-- IMAGE=<uuid> wrk --threads 1 --connections 64 --duration 10s --latency --script loadtest/recipes/pixels.lua http://127.0.0.1:8080
local image = os.getenv("IMAGE") or error("IMAGE is not set: the id that `pixeld image add` printed")
local message = "00000000-0000-4000-8000-0000000077c2"
local number = 0
local threads = 0

function setup(thread)
    thread:set("thread_number", threads)
    threads = threads + 1
end

function init()
    math.randomseed(os.time() + thread_number)
    run = math.random(0, 0xffff)
end

function request()
    number = number + 1
    local recipient = string.format("%08x-%04x-4%03x-8000-%012x", run, thread_number, 0, number)
    local address = string.format("11.%d.%d.%d", math.floor(number / 65536) % 256, math.floor(number / 256) % 256, number % 256)
    return wrk.format("GET", "/image/" .. image .. "_" .. message .. "_" .. recipient .. ".gif", {
        ["Host"] = "pixels.example.com",
        ["User-Agent"] = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
        ["X-Forwarded-For"] = address,
    })
end

-- Compare this with: SELECT count(*), count(DISTINCT recipient) FROM hits WHERE message = '00000000-0000-4000-8000-0000000077c2'
function done(summary)
    io.write(string.format("answered %d, other statuses %d\n", summary.requests - summary.errors.status, summary.errors.status))
end
