# docker build -f docker/cuda.Dockerfile -t seg_plugins:cuda .
# mkdir -p output
# docker run --rm --gpus all --ipc=host -v "$PWD/output:/opt/seg_plugins/output" seg_plugins:cuda \
#     tools/train_net.py --config-file configs/quickstart/deeplabv3plus_r18_shapes.yaml
# (--ipc=host: the processes that read data need more shared memory than Docker gives.)
# Users and sizes as in the other file. The same pinned packages, too; their PyTorch is built for CUDA 13.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential git make python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/seg_plugins
# Ubuntu's image has this user, number 1000.
RUN chown ubuntu .
USER ubuntu
ENV PIP_NO_CACHE_DIR=1 FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="8.0;9.0;10.0;12.0+PTX"
COPY --chown=ubuntu requirements.txt Makefile ./
RUN make .venv/.requirements PYTHON=python3
COPY --chown=ubuntu . .
RUN make setup PYTHON=python3
ENTRYPOINT ["/opt/seg_plugins/.venv/bin/python"]
CMD ["tools/train_net.py", "--help"]
