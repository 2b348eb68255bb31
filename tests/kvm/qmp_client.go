// An independent client: Debian's package of go-qemu, whose types follow QEMU's own schema, so that a member that is
// missing or of another type fails here. Usage: qmp_client SOCKET DISK_SIZE, with a paused VM of one disk and two
// vCPUs.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"
)

const patience = 20 * time.Second

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func want(what string, got, expected interface{}) {
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		must(what, fmt.Errorf("%v, expected %v", got, expected))
	}
}

func waitFor(events chan qmp.Event, name string) {
	timeout := time.After(patience)
	for {
		select {
		case event := <-events:
			if event.Event == name {
				return
			}
		case <-timeout:
			must(name, fmt.Errorf("no such event"))
		}
	}
}

func lookAround(monitor *raw.Monitor, diskSize int64) {
	status, err := monitor.QueryStatus()
	must("query-status", err)
	want("status", status.Status.String(), "prelaunch")
	want("running", status.Running, false)
	name, err := monitor.QueryName()
	must("query-name", err)
	want("name", *name.Name, "vm")
	accelerator, err := monitor.QueryKVM()
	must("query-kvm", err)
	want("kvm", accelerator, raw.KVMInfo{Enabled: true, Present: true})
	memory, err := monitor.QueryMemorySizeSummary()
	must("query-memory-size-summary", err)
	want("memory", memory.BaseMemory, 64<<20)
	chardevs, err := monitor.QueryChardev()
	must("query-chardev", err)
	want("a character device at least", len(chardevs) > 0, true)
	blocks, err := monitor.QueryBlock()
	must("query-block", err)
	want("disks", len(blocks), 1)
	want("size", blocks[0].Inserted.Image.VirtualSize, diskSize)
	_, err = monitor.QueryUUID()
	must("query-uuid", err)
	events, err := monitor.QueryEvents()
	must("query-events", err)
	want("events", len(events) > 5, true)
	_, err = monitor.QueryFdsets()
	must("query-fdsets", err)
}

func passFile(socket *qmp.SocketMonitor) {
	file, err := os.Open("/dev/null")
	must("/dev/null", err)
	defer file.Close()
	reply, err := socket.RunWithFile([]byte(`{"execute": "add-fd", "arguments": {"fdset-id": 7}}`), file)
	must("add-fd", err)
	var added struct {
		Return raw.AddfdInfo `json:"return"`
	}
	must("add-fd", json.Unmarshal(reply, &added))
	want("set", added.Return.FdsetID, 7)
	must("remove-fd", raw.NewMonitor(socket).RemoveFD(7, &added.Return.FD))
}

func steer(domain *qemu.Domain, monitor *raw.Monitor) {
	events, done, err := domain.Events()
	must("events", err)
	must("cont", monitor.Cont())
	waitFor(events, "RESUME")
	status, err := domain.Status()
	must("status", err)
	want("status", status, qemu.StatusRunning)
	must("stop", monitor.Stop())
	waitFor(events, "STOP")
	must("system_reset", domain.SystemReset())
	waitFor(events, "RESET")
	if err := monitor.BlockResize(nil, nil, 1<<20); err == nil {
		must("block_resize of nothing", fmt.Errorf("no error"))
	}
	must("quit", monitor.Quit())
	done <- struct{}{}
}

func main() {
	diskSize, err := strconv.ParseInt(os.Args[2], 10, 64)
	must("DISK_SIZE", err)
	socket, err := qmp.NewSocketMonitor("unix", os.Args[1], patience)
	must("connect", err)
	must("greeting", socket.Connect())
	want("version", socket.Version.QEMU.Major >= 7, true)
	domain, err := qemu.NewDomain(socket, "vm")
	must("domain", err)
	supported, err := domain.Supported("query-cpus-fast")
	must("query-commands", err)
	want("query-cpus-fast", supported, true)
	package_, err := domain.PackageVersion()
	must("query-version", err)
	want("gyre", package_[:5], "gyre ")
	devices, err := domain.BlockDevices()
	must("query-block", err)
	want("disks", len(devices), 1)
	stats, err := domain.BlockStats()
	must("query-blockstats", err)
	want("statistics of disks", len(stats), 1)
	monitor := raw.NewMonitor(socket)
	lookAround(monitor, diskSize)
	passFile(socket)
	steer(domain, monitor)
}
