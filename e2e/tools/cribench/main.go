// cribench measures containerd over CRI from one long-lived connection, so that the start-up of a command-line client
// (hundreds of milliseconds on an emulated node) is not part of any figure.
//
//	cribench -handler cryopod -op pod    -n 5 -image localhost/busybox:1
//	cribench -handler runc    -op second -n 5
//	cribench -handler runc    -op exec   -n 5
//
// It prints one JSON object: {"handler", "op", "runs": [{"phase": milliseconds, …, "total": …}, …]}.
// With -alternate H2 the runs of both handlers are interleaved (A B A B …), since the machine's speed drifts; then it
// prints one object per handler, a line each. The first run of each handler is a warm-up and is not reported.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type run map[string]float64

type bench struct {
	client cri.RuntimeServiceClient
	image  string
	serial int
}

func main() {
	socket := flag.String("socket", "unix:///run/containerd/containerd.sock", "CRI endpoint")
	handler := flag.String("handler", "runc", "runtime handler")
	alternate := flag.String("alternate", "", "second runtime handler, measured in turn with the first")
	op := flag.String("op", "pod", "pod | second | exec")
	n := flag.Int("n", 5, "measured runs of each handler")
	image := flag.String("image", "localhost/busybox:1", "image of the container")
	flag.Parse()
	connection, err := grpc.NewClient(*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
	}
	b := &bench{client: cri.NewRuntimeServiceClient(connection), image: *image}
	handlers := []string{*handler}
	if *alternate != "" {
		handlers = append(handlers, *alternate)
	}
	results := map[string][]run{}
	for i := 0; i <= *n; i++ {
		for _, h := range handlers {
			r, err := b.measure(h, *op)
			if err != nil {
				fail(fmt.Errorf("%s with handler %s, run %d: %w", *op, h, i, err))
			}
			if i > 0 {
				results[h] = append(results[h], r)
			}
		}
	}
	for _, h := range handlers {
		line, err := json.Marshal(map[string]any{"handler": h, "op": *op, "runs": results[h]})
		if err != nil {
			fail(err)
		}
		fmt.Println(string(line))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "cribench:", err)
	os.Exit(1)
}

// measure does one operation in a fresh pod and removes the pod again; only the operation is timed.
func (b *bench) measure(handler, op string) (result run, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	b.serial++
	name := fmt.Sprintf("bench-%d-%d", os.Getpid(), b.serial)
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name},
		LogDirectory: "/var/log/pods/" + name,
		Linux:        &cri.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod" + name},
	}
	result = run{}
	start := time.Now()
	sandbox, err := b.client.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	result["run_pod_sandbox"] = since(start)
	defer func() {
		_, stop := b.client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		_, remove := b.client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		for _, e := range []error{stop, remove} {
			if err == nil && e != nil {
				err = e
			}
		}
	}()
	first, create, begin, err := b.container(ctx, sandbox.PodSandboxId, pod, "first")
	if err != nil {
		return nil, err
	}
	switch op {
	case "pod":
		result["create_container"], result["start_container"] = create, begin
		result["total"] = result["run_pod_sandbox"] + create + begin
	case "second":
		_, create, begin, err := b.container(ctx, sandbox.PodSandboxId, pod, "second")
		if err != nil {
			return nil, err
		}
		result = run{"create_container": create, "start_container": begin, "total": create + begin}
	case "exec":
		start := time.Now()
		reply, err := b.client.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: first, Cmd: []string{"/bin/true"}, Timeout: 60})
		if err != nil {
			return nil, err
		}
		if reply.ExitCode != 0 {
			return nil, fmt.Errorf("/bin/true ended with %d: %s", reply.ExitCode, reply.Stderr)
		}
		result = run{"total": since(start)}
	default:
		return nil, fmt.Errorf("no operation %q: pod, second or exec", op)
	}
	return result, nil
}

func (b *bench) container(ctx context.Context, sandbox string, pod *cri.PodSandboxConfig, name string) (id string, create, start float64, err error) {
	config := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: b.image},
		Command:  []string{"sleep", "1000"},
		LogPath:  name + ".log",
		Linux:    &cri.LinuxContainerConfig{},
	}
	t := time.Now()
	created, err := b.client.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sandbox, Config: config, SandboxConfig: pod})
	if err != nil {
		return "", 0, 0, err
	}
	create = since(t)
	t = time.Now()
	if _, err := b.client.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return "", 0, 0, err
	}
	return created.ContainerId, create, since(t), nil
}

func since(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }
