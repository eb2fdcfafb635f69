/* What Python's ctypes cannot reach in AlexeyAB's library: accessors.c for his structs, under the same names.
 * Every function returns 0 or a count on success and a negative number where a name is unknown or a size does not fit. */
#include "darknet.h"

/* Exported by his library, not declared in darknet.h. */
char *get_layer_string(LAYER_TYPE a);
float get_current_rate(network net);
float train_network_datum(network net, float *x, float *y);
void update_network(network net);
void save_weights_upto(network net, char *filename, int cutoff, int save_ema);
void load_weights_upto(network *net, char *filename, int cutoff);

data load_data_augment(char **paths, int n, int m, char **labels, int k, tree *hierarchy, int use_flip, int min, int max, int w, int h, float angle,
                       float aspect, float hue, float saturation, float exposure, int use_mixup, int use_blur, int show_imgs,
                       float label_smooth_eps, int dontuse_opencv, int contrastive);
tree *read_tree(char *filename);

/* load_data_augment with label_smooth_eps in the place of pjreddie's `center`, and with `mixup`; `tree_file` may be NULL. */
void oracle_load_classes(int n, char **paths, int m, char **labels, int k, char *tree_file, int min, int max, int size, float angle, float aspect,
                         float hue, float saturation, float exposure, float smooth, int mixup, float *x, float *truth)
{
    int i;
    tree *hierarchy = tree_file ? read_tree(tree_file) : 0;
    data d = load_data_augment(paths, n, m, labels, k, hierarchy, 1, min, max, size, size, angle, aspect, hue, saturation, exposure, mixup, 0,
                               0, smooth, 1, 0);
    for (i = 0; i < n; ++i) {
        memcpy(x + (long)i*d.X.cols, d.X.vals[i], sizeof(float)*d.X.cols);
        memcpy(truth + (long)i*d.y.cols, d.y.vals[i], sizeof(float)*d.y.cols);
    }
    free_data(d);
}

data load_data_detection(int n, char **paths, int m, int w, int h, int c, int boxes, int truth_size, int classes, int use_flip, int gaussian_noise, int use_blur,
                         int use_mixup, float jitter, float resize, float hue, float saturation, float exposure, int mini_batch, int track, int augment_speed,
                         int letter_box, int mosaic_bound, int contrastive, int contrastive_jit_flip, int contrastive_color, int show_imgs);

/* One sample. x: w*h*3, truth: boxes*5 numbers. */
void oracle_load_detection(char **paths, int m, int w, int h, int boxes, int classes, int flip, int noise, int blur, int mixup, float jitter, float resize,
                           float hue, float saturation, float exposure, int letter_box, int mosaic_bound, float *x, float *truth)
{
    int i;
    data d = load_data_detection(1, paths, m, w, h, 3, boxes, 6, classes, flip, noise, blur, mixup, jitter, resize, hue, saturation, exposure, 1, 0, 2,
                                 letter_box, mosaic_bound, 0, 0, 0, 0);
    memcpy(x, d.X.vals[0], sizeof(float)*d.X.cols);
    for (i = 0; i < boxes; ++i) memcpy(truth + 5*i, d.y.vals[0] + 6*i, 5*sizeof(float));
    free_data(d);
}

#define NUMBER(name) if (!strcmp(field, #name)) { if (write) s->name = *value; else *value = s->name; return 0; }

static int layer_number(layer *s, const char *field, double *value, int write)
{
    NUMBER(type) NUMBER(activation) NUMBER(batch_normalize) NUMBER(batch) NUMBER(inputs) NUMBER(outputs) NUMBER(nweights)
    NUMBER(truths) NUMBER(h) NUMBER(w) NUMBER(c) NUMBER(out_h) NUMBER(out_w) NUMBER(out_c) NUMBER(n) NUMBER(total) NUMBER(max_boxes)
    NUMBER(groups) NUMBER(group_id) NUMBER(size) NUMBER(stride) NUMBER(stride_x) NUMBER(stride_y) NUMBER(dilation) NUMBER(antialiasing)
    NUMBER(maxpool_depth) NUMBER(maxpool_zero_nonmax) NUMBER(out_channels) NUMBER(coordconv) NUMBER(use_bin_output) NUMBER(scale_wh)
    NUMBER(sway) NUMBER(rotate) NUMBER(stretch) NUMBER(stretch_sway) NUMBER(angle) NUMBER(grad_centr) NUMBER(assisted_excitation)
    NUMBER(stream) NUMBER(wait_stream_id) NUMBER(dropblock) NUMBER(dropblock_size_rel) NUMBER(dropblock_size_abs)
    NUMBER(dont_update) NUMBER(burnin_update) NUMBER(train_only_bn) NUMBER(dot)
    NUMBER(pad) NUMBER(index) NUMBER(reverse) NUMBER(flipped) NUMBER(steps) NUMBER(hidden) NUMBER(train) NUMBER(clip)
    NUMBER(jitter) NUMBER(resize) NUMBER(learning_rate_scale) NUMBER(softmax) NUMBER(classes) NUMBER(coords) NUMBER(background) NUMBER(rescore)
    NUMBER(alpha) NUMBER(beta) NUMBER(coord_scale) NUMBER(object_scale) NUMBER(noobject_scale) NUMBER(class_scale)
    NUMBER(scale_x_y) NUMBER(new_coords) NUMBER(nms_kind) NUMBER(beta_nms) NUMBER(iou_loss) NUMBER(iou_normalizer) NUMBER(obj_normalizer)
    NUMBER(cls_normalizer) NUMBER(delta_normalizer) NUMBER(uc_normalizer) NUMBER(max_delta) NUMBER(ignore_thresh) NUMBER(truth_thresh)
    NUMBER(iou_thresh) NUMBER(random) NUMBER(thresh) NUMBER(onlyforward) NUMBER(stopbackward) NUMBER(dontload) NUMBER(dontloadscales)
    NUMBER(temperature) NUMBER(probability) NUMBER(scale) NUMBER(binary) NUMBER(xnor) NUMBER(cost_type) NUMBER(bflops)
    return -1;
}

static int network_number(network *s, const char *field, double *value, int write)
{
    NUMBER(n) NUMBER(batch) NUMBER(subdivisions) NUMBER(policy) NUMBER(learning_rate) NUMBER(momentum) NUMBER(decay) NUMBER(gamma)
    NUMBER(scale) NUMBER(power) NUMBER(time_steps) NUMBER(step) NUMBER(max_batches) NUMBER(num_steps) NUMBER(burn_in) NUMBER(inputs)
    NUMBER(outputs) NUMBER(truths) NUMBER(h) NUMBER(w) NUMBER(c) NUMBER(max_crop) NUMBER(min_crop) NUMBER(angle) NUMBER(aspect)
    NUMBER(exposure) NUMBER(saturation) NUMBER(hue) NUMBER(train) NUMBER(letter_box) NUMBER(ema_alpha)
    if (!strcmp(field, "seen")) { if (write) *s->seen = *value; else *value = *s->seen; return 0; }
    if (!strcmp(field, "cur_iteration")) { if (write) *s->cur_iteration = *value; else *value = *s->cur_iteration; return 0; }
    return -1;
}

int oracle_layer_number(network *net, int i, const char *field, double *value, int write) { return layer_number(net->layers + i, field, value, write); }
int oracle_network_number(network *net, const char *field, double *value, int write) { return network_number(net, field, value, write); }

const char *oracle_layer_type(network *net, int i)
{
    LAYER_TYPE type = net->layers[i].type;
    switch (type) {  /* those that get_layer_string calls "none" or by another section's name */
        case UPSAMPLE: return "upsample";
        case REORG: return "reorg3d";
        case REORG_OLD: return "reorg";
        case LOCAL_AVGPOOL: return "local_avgpool";
        case IMPLICIT: return "implicit";
        case EMPTY: return "empty";
        case CONTRASTIVE: return "contrastive";
        case CONV_LSTM: return "conv_lstm";
        case HISTORY: return "history";
        default: return get_layer_string(type);
    }
}

static long channels(layer l)
{
    if (l.type == CONNECTED || l.type == LOCAL) return l.outputs;
    if (l.type == BATCHNORM) return l.c;
    if (l.type == REGION || l.type == YOLO || l.type == GAUSSIAN_YOLO) return 2*(l.type == REGION ? l.n : l.total);
    return l.n;
}

static long weights(layer l)
{
    if (l.type == CONNECTED) return (long)l.inputs*l.outputs;
    if (l.type == LOCAL) return (long)l.size*l.size*l.c*l.n*l.out_w*l.out_h;
    return l.nweights;
}

#define TENSOR(name, length) if (!strcmp(field, #name)) { *data = l.name; return l.name ? (length) : 0; }

/* Where a layer's tensor stands in memory; returns its length in floats, 0 where the layer has none. */
long oracle_layer_tensor(network *net, int i, const char *field, float **data)
{
    layer l = net->layers[i];
    long batch = (long)l.batch*l.outputs;
    /* What the next layer reads of a layer with antialiasing is the blur's output, at the front of its own. */
    if (l.antialiasing) TENSOR(output, (long)l.batch*l.input_layer->outputs)
    TENSOR(output, batch) TENSOR(delta, batch) TENSOR(x, batch) TENSOR(x_norm, batch) TENSOR(activation_input, batch)
    TENSOR(weights, weights(l)) TENSOR(weight_updates, weights(l))
    TENSOR(biases, channels(l)) TENSOR(bias_updates, channels(l))
    TENSOR(scales, channels(l)) TENSOR(scale_updates, channels(l))
    TENSOR(rolling_mean, channels(l)) TENSOR(rolling_variance, channels(l)) TENSOR(mean, channels(l)) TENSOR(variance, channels(l))
    TENSOR(cost, 1)
    return -1;
}

void oracle_predict(network *net, float *x) { network_predict_ptr(net, x); }
void oracle_fuse(network *net) { fuse_conv_batchnorm(*net); }
void oracle_binary_weights(network *net) { calculate_binary_weights(*net); }
void oracle_save_weights(network *net, char *file, int cutoff) { save_weights_upto(*net, file, cutoff, 0); }

/* His load_weights_upto always starts at the first layer. */
void oracle_load_weights(network *net, char *file, int start, int cutoff) { load_weights_upto(net, file, cutoff); }

void oracle_free_network(network *net)
{
    int i;
    /* An [empty] layer holds the buffers of the layer before it, which free_network would free twice. */
    for (i = 0; i < net->n; ++i) if (net->layers[i].type == EMPTY) net->layers[i].output = net->layers[i].delta = NULL;
    free_network_ptr(net);
    free(net);
}

float oracle_network_rate(network *net) { return get_current_rate(*net); }

/* train_network_datum. `update`: 0 never, 1 always, -1 when due. His trainer counts the updates itself.
 * A layer whose maker does not set `train` ([route], [avgpool], ...) would on a CPU never have its delta cleared; on a GPU it always has. */
float oracle_train(network *net, float *x, float *truth, int update)
{
    int i;
    net->train = 1;
    for (i = 0; i < net->n; ++i) if (!net->layers[i].onlyforward) net->layers[i].train = 1;
    float cost = train_network_datum(*net, x, truth);
    if (update < 0) update = (*net->seen/net->batch) % net->subdivisions == 0;
    if (update) {
        ++*net->cur_iteration;
        update_network(*net);
    }
    return cost;
}

static void sort(detection *dets, int total, int classes, float nms, int kind, float beta)
{
    if (nms <= 0) return;
    if (kind == DEFAULT_NMS) do_nms_sort(dets, total, classes, nms);
    else diounms_sort(dets, total, classes, nms, kind, beta);
}

static int read_detections(detection *dets, int total, int classes, float nms, int kind, float beta, float *boxes, float *objectness,
                           float *prob, int *order)
{
    int i;
    /* NMS moves the detections about; `track_id`, which it does not read, remembers where each came from. */
    for (i = 0; i < total; ++i) dets[i].track_id = i;
    sort(dets, total, classes, nms, kind, beta);
    for (i = 0; i < total; ++i) {
        int from = dets[i].track_id;
        order[i] = from;
        memcpy(boxes + 4*from, &dets[i].bbox, 4*sizeof(float));
        objectness[from] = dets[i].objectness;
        memcpy(prob + (long)from*classes, dets[i].prob, classes*sizeof(float));
    }
    return total;
}

/* get_network_boxes and, where nms > 0, the NMS that `kind` names, as the verbs run it. */
int oracle_boxes(network *net, int w, int h, float thresh, float hier, int *map, int relative, int letter, float nms, int kind, float beta,
                 int capacity, float *boxes, float *objectness, float *prob, int *order)
{
    int total = 0;
    detection *dets = get_network_boxes(net, w, h, thresh, hier, map, relative, &total, letter);
    int classes = net->layers[net->n - 1].classes;
    if (total <= capacity) read_detections(dets, total, classes, nms, kind, beta, boxes, objectness, prob, order);
    free_detections(dets, total);
    return total <= capacity ? total : -1;
}

void oracle_nms_sort(int total, int classes, float nms, int kind, float beta, float *boxes, float *objectness, float *prob, int *order)
{
    int i;
    detection *dets = calloc(total, sizeof(detection));
    for (i = 0; i < total; ++i) {
        memcpy(&dets[i].bbox, boxes + 4*i, 4*sizeof(float));
        dets[i].objectness = objectness[i];
        dets[i].prob = calloc(classes, sizeof(float));
        memcpy(dets[i].prob, prob + (long)i*classes, classes*sizeof(float));
    }
    read_detections(dets, total, classes, nms, kind, beta, boxes, objectness, prob, order);
    free_detections(dets, total);
}
