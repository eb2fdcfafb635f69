/* What Python's ctypes cannot reach in libdarknet: fields of the big structs, and functions that take or return them by value.
 * Every function returns 0 or a count on success and a negative number where a name is unknown or a size does not fit. */
#include <math.h>
#include <stddef.h>
#include "darknet.h"

/* Exported by libdarknet, not declared in darknet.h. */
void activate_array(float *x, const int n, const ACTIVATION a);
void gradient_array(const float *x, const int n, const ACTIVATION a, float *delta);
void softmax_cpu(float *input, int n, int batch, int batch_offset, int groups, int group_offset, int stride, float temp, float *output);
void place_image(image im, int w, int h, int dx, int dy, image canvas);
void distort_image(image im, float hue, float sat, float val);
void rgb_to_hsv(image im);
void hsv_to_rgb(image im);
void correct_boxes(box_label *boxes, int n, float dx, float dy, float sx, float sy, int flip);
data load_data_detection(int n, char **paths, int m, int w, int h, int boxes, int classes, float jitter, float hue, float saturation, float exposure);
data load_data_region(int n, char **paths, int m, int w, int h, int size, int classes, float jitter, float hue, float saturation, float exposure);
data load_data_augment(char **paths, int n, int m, char **labels, int k, tree *hierarchy, int min, int max, int size, float angle,
                       float aspect, float hue, float saturation, float exposure, int center);
layer make_region_layer(int batch, int w, int h, int n, int classes, int coords);
void forward_region_layer(const layer l, network net);
char *get_layer_string(LAYER_TYPE a);

#define NUMBER(name) if (!strcmp(field, #name)) { if (write) s->name = *value; else *value = s->name; return 0; }

static int layer_number(layer *s, const char *field, double *value, int write)
{
    NUMBER(type) NUMBER(activation) NUMBER(batch_normalize) NUMBER(batch) NUMBER(inputs) NUMBER(outputs) NUMBER(nweights)
    NUMBER(truths) NUMBER(h) NUMBER(w) NUMBER(c) NUMBER(out_h) NUMBER(out_w) NUMBER(out_c) NUMBER(n) NUMBER(max_boxes)
    NUMBER(groups) NUMBER(size) NUMBER(stride) NUMBER(pad) NUMBER(index) NUMBER(reverse) NUMBER(flipped)
    NUMBER(jitter) NUMBER(learning_rate_scale) NUMBER(softmax) NUMBER(classes) NUMBER(coords) NUMBER(background) NUMBER(rescore)
    NUMBER(alpha) NUMBER(beta) NUMBER(coord_scale) NUMBER(object_scale) NUMBER(noobject_scale) NUMBER(mask_scale) NUMBER(class_scale)
    NUMBER(bias_match) NUMBER(random) NUMBER(thresh) NUMBER(classfix) NUMBER(absolute) NUMBER(onlyforward) NUMBER(stopbackward)
    NUMBER(dontload) NUMBER(dontsave) NUMBER(dontloadscales) NUMBER(temperature) NUMBER(probability) NUMBER(scale)
    NUMBER(truth) NUMBER(numload) NUMBER(smooth) NUMBER(extra) NUMBER(flatten) NUMBER(spatial) NUMBER(noloss) NUMBER(dot)
    NUMBER(binary) NUMBER(xnor) NUMBER(ratio) NUMBER(log) NUMBER(sqrt) NUMBER(cost_type)
    NUMBER(total) NUMBER(ignore_thresh) NUMBER(truth_thresh) NUMBER(side) NUMBER(forced) NUMBER(reorg)
    return -1;
}

static int network_number(network *s, const char *field, double *value, int write)
{
    NUMBER(n) NUMBER(batch) NUMBER(epoch) NUMBER(subdivisions) NUMBER(policy) NUMBER(learning_rate) NUMBER(momentum) NUMBER(decay)
    NUMBER(gamma) NUMBER(scale) NUMBER(power) NUMBER(time_steps) NUMBER(step) NUMBER(max_batches) NUMBER(num_steps) NUMBER(burn_in)
    NUMBER(adam) NUMBER(B1) NUMBER(B2) NUMBER(eps) NUMBER(inputs) NUMBER(outputs) NUMBER(truths) NUMBER(notruth) NUMBER(h) NUMBER(w)
    NUMBER(c) NUMBER(max_crop) NUMBER(min_crop) NUMBER(angle) NUMBER(aspect) NUMBER(exposure) NUMBER(saturation) NUMBER(hue)
    NUMBER(random) NUMBER(train) NUMBER(max_ratio) NUMBER(min_ratio) NUMBER(center) NUMBER(clip)
    if (!strcmp(field, "seen")) { if (write) *s->seen = *value; else *value = *s->seen; return 0; }
    if (!strcmp(field, "t")) { if (write) *s->t = *value; else *value = *s->t; return 0; }
    if (!strcmp(field, "cost")) { if (write) *s->cost = *value; else *value = *s->cost; return 0; }
    return -1;
}

int oracle_layer_number(network *net, int i, const char *field, double *value, int write) { return layer_number(net->layers + i, field, value, write); }
int oracle_network_number(network *net, const char *field, double *value, int write) { return network_number(net, field, value, write); }
const char *oracle_layer_type(network *net, int i) { return net->layers[i].type == UPSAMPLE ? "upsample" : get_layer_string(net->layers[i].type); }

static long channels(layer l)
{
    if (l.type == CONNECTED) return l.outputs;
    if (l.type == LOCAL) return l.outputs;
    if (l.type == BATCHNORM) return l.c;
    if (l.type == REGION || l.type == YOLO) return l.type == REGION ? 2*l.n : 2*l.total;
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
    TENSOR(output, batch) TENSOR(delta, batch) TENSOR(x, batch) TENSOR(x_norm, batch)
    TENSOR(weights, weights(l)) TENSOR(weight_updates, weights(l)) TENSOR(m, weights(l)) TENSOR(v, weights(l))
    TENSOR(biases, channels(l)) TENSOR(bias_updates, channels(l)) TENSOR(bias_m, channels(l)) TENSOR(bias_v, channels(l))
    TENSOR(scales, channels(l)) TENSOR(scale_updates, channels(l)) TENSOR(scale_m, channels(l)) TENSOR(scale_v, channels(l))
    TENSOR(rolling_mean, channels(l)) TENSOR(rolling_variance, channels(l)) TENSOR(mean, channels(l)) TENSOR(variance, channels(l))
    TENSOR(cost, 1)
    return -1;
}

void oracle_predict(network *net, float *x) { network_predict(net, x); }
void oracle_save_weights(network *net, char *file, int cutoff) { save_weights_upto(net, file, cutoff); }
void oracle_load_weights(network *net, char *file, int start, int cutoff) { load_weights_upto(net, file, start, cutoff); }

void oracle_free_network(network *net)
{
    free(net->workspace);
    free_network(net);
}

float oracle_network_rate(network *net) { return get_current_rate(net); }

/* get_current_rate of a network that has nothing but a schedule. */
float oracle_rate(int policy, long batch_number, float learning_rate, int burn_in, float power, float gamma, float scale, int step,
                  int max_batches, int *steps, float *scales, int num_steps)
{
    size_t seen = batch_number;
    network net = {0};
    net.batch = net.subdivisions = 1;
    net.seen = &seen;
    net.policy = policy;
    net.learning_rate = learning_rate;
    net.burn_in = burn_in;
    net.power = power;
    net.gamma = gamma;
    net.scale = scale;
    net.step = step;
    net.max_batches = max_batches;
    net.steps = steps;
    net.scales = scales;
    net.num_steps = num_steps;
    return get_current_rate(&net);
}

/* What backward_region_layer_gpu does to l.delta: the logistic's gradient on x, y and objectness. */
static void region_gradient(layer l)
{
    int plane = l.w*l.h;
    int b;
    for (b = 0; b < l.batch*l.n; ++b) {
        long first = (long)b*plane*(l.coords + 1 + l.classes);
        gradient_array(l.output + first, 2*plane, LOGISTIC, l.delta + first);
        if (l.coords > 4) {
            long mask = first + 4L*plane;
            gradient_array(l.output + mask, (l.coords - 4)*plane, LOGISTIC, l.delta + mask);
        }
        long objectness = first + (long)l.coords*plane;
        if (!l.background) gradient_array(l.output + objectness, plane, LOGISTIC, l.delta + objectness);
    }
}

/* train_network_datum, with the region backward pass that the CPU build lacks. `update`: 0 never, 1 always, -1 when due. */
float oracle_train(network *net, float *x, float *truth, int update)
{
    int i;
    memcpy(net->input, x, sizeof(float)*net->inputs*net->batch);
    memcpy(net->truth, truth, sizeof(float)*net->truths*net->batch);
    *net->seen += net->batch;
    net->train = 1;
    forward_network(net);
    for (i = 1; i < net->n; ++i) {
        layer l = net->layers[i];
        if (l.type != REGION || !net->layers[i - 1].delta) continue;
        region_gradient(l);
        axpy_cpu(l.batch*l.inputs, 1, l.delta, 1, net->layers[i - 1].delta, 1);
    }
    backward_network(net);
    float cost = *net->cost;
    if (update < 0) update = (*net->seen/net->batch) % net->subdivisions == 0;
    if (update) update_network(net);
    return cost;
}

static int read_detections(detection *dets, int total, int classes, float nms, float *boxes, float *objectness, float *prob, int *order)
{
    int i;
    /* do_nms_sort moves the detections about; `classes`, which it does not read, remembers where each came from. */
    for (i = 0; i < total; ++i) dets[i].classes = i;
    if (nms > 0) do_nms_sort(dets, total, classes, nms);
    for (i = 0; i < total; ++i) {
        int from = dets[i].classes;
        order[i] = from;
        memcpy(boxes + 4*from, &dets[i].bbox, 4*sizeof(float));
        objectness[from] = dets[i].objectness;
        memcpy(prob + (long)from*classes, dets[i].prob, classes*sizeof(float));
    }
    return total;
}

/* get_network_boxes and, where nms > 0, do_nms_sort. */
int oracle_boxes(network *net, int w, int h, float thresh, float hier, int *map, int relative, float nms, int capacity,
                 float *boxes, float *objectness, float *prob, int *order)
{
    int total = 0;
    detection *dets = get_network_boxes(net, w, h, thresh, hier, map, relative, &total);
    int classes = net->layers[net->n - 1].classes;
    if (total <= capacity) read_detections(dets, total, classes, nms, boxes, objectness, prob, order);
    free_detections(dets, total);
    return total <= capacity ? total : -1;
}

void oracle_nms_sort(int total, int classes, float nms, float *boxes, float *objectness, float *prob, int *order)
{
    int i;
    detection *dets = calloc(total, sizeof(detection));
    for (i = 0; i < total; ++i) {
        memcpy(&dets[i].bbox, boxes + 4*i, 4*sizeof(float));
        dets[i].objectness = objectness[i];
        dets[i].prob = calloc(classes, sizeof(float));
        memcpy(dets[i].prob, prob + (long)i*classes, classes*sizeof(float));
    }
    read_detections(dets, total, classes, nms, boxes, objectness, prob, order);
    free_detections(dets, total);
}

void oracle_box_iou(int n, const box *a, const box *b, float *out)
{
    int i;
    for (i = 0; i < n; ++i) out[i] = box_iou(a[i], b[i]);
}

/* A region layer of its own: number fields and anchors set from outside. */
layer *oracle_region_new(int batch, int w, int h, int n, int classes, int coords, const float *anchors, const char *tree_file, const char *map_file)
{
    layer *l = malloc(sizeof(layer));
    *l = make_region_layer(batch, w, h, n, classes, coords);
    memcpy(l->biases, anchors, 2*n*sizeof(float));
    l->temperature = 1;
    if (tree_file) l->softmax_tree = read_tree((char *)tree_file);
    if (map_file) l->map = read_map((char *)map_file);
    return l;
}

int oracle_region_number(layer *l, const char *field, double *value, int write) { return layer_number(l, field, value, write); }

void oracle_region_free(layer *l)
{
    free_layer(*l);
    free(l);
}

/* forward_region_layer as the GPU build has it. That differs from the CPU build's in one place: softmax_tree_gpu walks the groups with
 * the right strides, softmax_cpu's call does not for maps above 1x1. So the groups are done here with softmax_cpu, and the layer is told
 * of no groups to do. Copies out the activated map, delta as the layer leaves it, and delta with the logistic's gradient. */
float oracle_region_forward(layer *l, float *map, float *truth, int truths, long seen, int train, float *output, float *delta, float *gradient)
{
    size_t images = seen;
    network net = {0};
    size_t bytes = sizeof(float)*l->outputs*l->batch;
    int groups = 0;
    float *input = malloc(bytes);
    memcpy(input, map, bytes);
    if (l->softmax_tree) {
        tree *t = l->softmax_tree;
        int plane = l->w*l->h;
        int g, s;
        for (g = 0; g < t->groups; ++g) {
            for (s = 0; s < plane; ++s) {
                long first = (long)(l->coords + 1 + t->group_offset[g])*plane + s;
                softmax_cpu(map + first, t->group_size[g], l->batch*l->n, l->inputs/l->n, 1, 0, plane, 1, input + first);
            }
        }
        groups = t->groups;
        t->groups = 0;
    }
    l->truths = truths;
    *l->cost = 0;
    net.input = input;
    net.truth = truth;
    net.train = train;
    net.seen = &images;
    forward_region_layer(*l, net);
    if (l->softmax_tree) l->softmax_tree->groups = groups;
    memcpy(output, l->output, bytes);
    memcpy(delta, l->delta, bytes);
    region_gradient(*l);
    memcpy(gradient, l->delta, bytes);
    free(input);
    return *l->cost;
}

/* get_region_detections on the output that the last forward pass left, first image of the batch. */
int oracle_region_boxes(layer *l, int w, int h, int netw, int neth, float thresh, float hier, int *map, int relative, float nms,
                        float *boxes, float *objectness, float *prob, int *order)
{
    int total = l->w*l->h*l->n;
    int i;
    detection *dets = calloc(total, sizeof(detection));
    for (i = 0; i < total; ++i) dets[i].prob = calloc(l->classes, sizeof(float));
    get_region_detections(*l, w, h, netw, neth, thresh, map, hier, relative, dets);
    read_detections(dets, total, l->classes, nms, boxes, objectness, prob, order);
    free_detections(dets, total);
    return total;
}

static void give(image im, float *out)
{
    memcpy(out, im.data, sizeof(float)*im.w*im.h*im.c);
    free_image(im);
}

void oracle_resize(int w, int h, int c, float *in, int to_w, int to_h, float *out) { give(resize_image(float_to_image(w, h, c, in), to_w, to_h), out); }
void oracle_letterbox(int w, int h, int c, float *in, int to_w, int to_h, float *out) { give(letterbox_image(float_to_image(w, h, c, in), to_w, to_h), out); }
void oracle_place(int w, int h, int c, float *in, float to_w, float to_h, float dx, float dy, int canvas_w, int canvas_h, float *canvas)
{
    place_image(float_to_image(w, h, c, in), to_w, to_h, dx, dy, float_to_image(canvas_w, canvas_h, c, canvas));
}
void oracle_distort(int w, int h, float *planes, float hue, float saturation, float exposure)
{
    distort_image(float_to_image(w, h, 3, planes), hue, saturation, exposure);
}
void oracle_rgb_to_hsv(int w, int h, float *planes) { rgb_to_hsv(float_to_image(w, h, 3, planes)); }
void oracle_hsv_to_rgb(int w, int h, float *planes) { hsv_to_rgb(float_to_image(w, h, 3, planes)); }
void oracle_flip(int w, int h, int c, float *planes) { flip_image(float_to_image(w, h, c, planes)); }
void oracle_save(int w, int h, int c, float *planes, const char *name) { save_image(float_to_image(w, h, c, planes), name); }

/* load_image_color; the planes stay with libdarknet until oracle_free. */
float *oracle_load(char *file, int *w, int *h)
{
    image im = load_image_color(file, 0, 0);
    *w = im.w;
    *h = im.h;
    return im.data;
}
void oracle_free(void *memory) { free(memory); }

/* correct_boxes on rows of (class, x, y, w, h); writes the same rows back. */
void oracle_correct_boxes(int n, float *rows, float dx, float dy, float sx, float sy, int flip)
{
    int i;
    box_label *boxes = calloc(n, sizeof(box_label));
    for (i = 0; i < n; ++i) {
        float *row = rows + 5*i;
        box_label b = {row[0], row[1], row[2], row[3], row[4], row[1] - row[3]/2, row[1] + row[3]/2, row[2] - row[4]/2, row[2] + row[4]/2};
        boxes[i] = b;
    }
    correct_boxes(boxes, n, dx, dy, sx, sy, flip);
    for (i = 0; i < n; ++i) {
        rows[5*i + 1] = boxes[i].x;
        rows[5*i + 2] = boxes[i].y;
        rows[5*i + 3] = boxes[i].w;
        rows[5*i + 4] = boxes[i].h;
    }
    free(boxes);
}

/* load_data_region where `region`, else load_data_detection: `boxes` is then the side of the grid, or the truths per image. */
void oracle_load_data(int region, int n, char **paths, int m, int w, int h, int boxes, int classes, float jitter, float hue,
                      float saturation, float exposure, float *x, float *truth)
{
    int i;
    data (*load)(int, char **, int, int, int, int, int, float, float, float, float) = region ? load_data_region : load_data_detection;
    data d = load(n, paths, m, w, h, boxes, classes, jitter, hue, saturation, exposure);
    for (i = 0; i < n; ++i) {
        memcpy(x + (long)i*d.X.cols, d.X.vals[i], sizeof(float)*d.X.cols);
        memcpy(truth + (long)i*d.y.cols, d.y.vals[i], sizeof(float)*d.y.cols);
    }
    free_data(d);
}

/* load_data_augment; `tree_file` may be NULL. */
void oracle_load_classes(int n, char **paths, int m, char **labels, int k, char *tree_file, int min, int max, int size, float angle, float aspect,
                         float hue, float saturation, float exposure, int center, float *x, float *truth)
{
    int i;
    tree *hierarchy = tree_file ? read_tree(tree_file) : 0;
    data d = load_data_augment(paths, n, m, labels, k, hierarchy, min, max, size, angle, aspect, hue, saturation, exposure, center);
    for (i = 0; i < n; ++i) {
        memcpy(x + (long)i*d.X.cols, d.X.vals[i], sizeof(float)*d.X.cols);
        memcpy(truth + (long)i*d.y.cols, d.y.vals[i], sizeof(float)*d.y.cols);
    }
    free_data(d);
}

/* read_tree as plain arrays; with parent == NULL it only counts. */
int oracle_tree(const char *file, int *groups, int *parent, int *child, int *group, int *leaf, int *group_size, int *group_offset)
{
    tree *t = read_tree((char *)file);
    int i;
    int n = t->n;
    *groups = t->groups;
    if (parent) {
        memcpy(parent, t->parent, n*sizeof(int));
        memcpy(child, t->child, n*sizeof(int));
        memcpy(group, t->group, n*sizeof(int));
        memcpy(leaf, t->leaf, n*sizeof(int));
        memcpy(group_size, t->group_size, t->groups*sizeof(int));
        memcpy(group_offset, t->group_offset, t->groups*sizeof(int));
    }
    for (i = 0; i < n; ++i) free(t->name[i]);
    free(t->name); free(t->parent); free(t->child); free(t->group); free(t->leaf); free(t->group_size); free(t->group_offset);
    free(t);
    return n;
}
